"""Rendering events with a template, and comparing two versions of it."""
