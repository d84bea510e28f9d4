"""What the processes of a node share since before the fork: slots, who waits, who should stop."""
