"""The parts that benchmarks share: a rig, a Redis, invented requests, runs and plots."""
