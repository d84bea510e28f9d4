"""The commands that move or discard what waits: `trigger`, `destination`, `discard`."""
