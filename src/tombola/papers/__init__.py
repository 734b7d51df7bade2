"""What reproduces one paper's study. Nothing but the commands and the tests imports from here."""
