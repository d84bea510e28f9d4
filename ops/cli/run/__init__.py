"""The commands of the help's section Run, which start processes."""
