"""Feeding: what a person sends goes into Redis, and is watched until it is delivered."""
