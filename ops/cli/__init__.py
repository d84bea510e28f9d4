"""The `segrelay` command: one room per section of its help, and one per command with many parts."""
