"""Jsonnet: reading templates, and rendering events with them."""
