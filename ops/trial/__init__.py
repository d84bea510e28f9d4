"""Trying one person's event: which one of a file, what becomes of it, and sending it for real."""
