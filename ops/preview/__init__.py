"""`segrelay try`: what becomes of one event, without sending it or with sending it alone."""
