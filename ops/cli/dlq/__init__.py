"""The subcommands of `segrelay dlq`."""
