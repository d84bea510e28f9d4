"""Checks of templates and triggers on samples, before anything is sent."""
