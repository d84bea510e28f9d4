"""Benchmarks: functions that measure, and the table of scenarios that `make bench` runs."""
