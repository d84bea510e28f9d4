"""One Celery worker with its processes: how it starts, takes turns, is told, and ends."""
