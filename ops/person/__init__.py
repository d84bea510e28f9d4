"""People who change their identity or are erased."""
