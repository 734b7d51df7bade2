"""Tombola in other libraries: each file needs its library, which is an extra of Tombola's distribution."""
