"""The commands `segrelay pause` and `segrelay resume`."""
