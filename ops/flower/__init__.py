"""Flower, to watch the workers: the command, and the server of the extra `flower`."""
