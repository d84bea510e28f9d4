"""Confirming a destination, and leases of partitions that a command holds."""
