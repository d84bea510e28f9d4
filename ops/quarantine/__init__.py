"""The command `segrelay quarantine`."""
