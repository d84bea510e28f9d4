"""The `segrelay` command, one module per group of subcommands."""
