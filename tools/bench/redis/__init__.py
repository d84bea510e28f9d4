"""Benchmarks of Redis itself: its memory, its processor time, its commands."""
