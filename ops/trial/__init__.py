"""The command `segrelay try`: one person's event, rehearsed or sent."""
