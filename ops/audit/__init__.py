"""`segrelay audit`: the acts of people."""
