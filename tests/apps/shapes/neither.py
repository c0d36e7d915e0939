"""A module with nothing to serve."""
