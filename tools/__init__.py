"""For those who change segrelay: benchmarks, chaos, fuzzing, generated documents. In no wheel."""
