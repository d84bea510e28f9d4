"""The console: web pages that show the standing and the stores, with buttons for commands."""
