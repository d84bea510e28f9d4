"""Connections to Redis, and the one script that adds deliveries."""
