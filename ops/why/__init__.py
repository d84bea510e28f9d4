"""The command `segrelay why`: everything that is known about one person."""
