"""Celery's options and transport, the same for everyone who touches the broker."""
