"""What benchmarks are built on: their scenarios, what they stand on, and how results are drawn."""
