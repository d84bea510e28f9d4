"""Metrics for Prometheus: the status and the problems as text, read from Redis at each scrape."""
