"""The shipped Jsonnet templates, their library and their samples, as package data."""
