"""Benchmarks: each a module that can be run, each prints how it was measured."""
