"""Tickets in the training frameworks that people have: a module for each, imported only when it is asked for."""
