"""A node, one Celery worker with its processes: it starts, drains, sweeps and stops."""
