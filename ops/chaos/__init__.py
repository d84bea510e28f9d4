"""`make chaos`: breaks everything that can break while it works, and counts what went wrong."""
