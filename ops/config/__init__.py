"""The commands `segrelay config` and `segrelay init`."""
