"""The commands that run processes: `up`, `worker`, `serve`, `redis`."""
