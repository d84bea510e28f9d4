"""The command `segrelay demo`."""
