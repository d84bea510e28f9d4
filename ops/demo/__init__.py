"""A whole segrelay in one folder, for the demo, benchmarks and tests."""
