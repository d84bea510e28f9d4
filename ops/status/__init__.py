"""The command `segrelay status`: the state of the relay, and its problems."""
