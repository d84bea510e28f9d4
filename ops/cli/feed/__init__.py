"""The commands of the help's section Feed, but for `backfill`."""
