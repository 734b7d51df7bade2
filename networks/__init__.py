"""On which networks of other libraries does Tombola work, and how well beside Torch-Pruning? See `make networks`."""
