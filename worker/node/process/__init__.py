"""The objects that a process drains with, kept up to date with the template files."""
