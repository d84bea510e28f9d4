"""The subcommands of `segrelay backfill`."""
