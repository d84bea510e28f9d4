"""The command `segrelay sync`."""
