"""The command `segrelay person`: people who change their identity or are erased."""
