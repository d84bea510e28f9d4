"""The subcommands of `segrelay template`."""
