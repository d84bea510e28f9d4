"""Benchmarks: what segrelay costs, measured."""
