"""What compiled code refers to as it runs: values, operators, `std` and the twin of our library."""
