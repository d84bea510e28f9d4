"""What people use: the command line, the sandbox, the embedded Redis, benchmarks and chaos."""
