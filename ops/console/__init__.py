"""The console for browsers: what the standing and the stores hold, and buttons for commands."""
