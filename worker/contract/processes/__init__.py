"""Records of the processes that run: each worker, receiver and companion reports what it does."""
