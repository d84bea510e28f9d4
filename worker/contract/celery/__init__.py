"""Celery's options and transport, the same for every process that connects to the broker."""
