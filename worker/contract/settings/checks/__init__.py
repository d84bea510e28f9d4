"""Checks of a configuration that has been read."""
