"""The command `segrelay sandbox`, a faithful stand-in for Insider and Lytics."""
