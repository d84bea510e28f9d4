"""The runtime of compiled templates: values, operators, `std` and the twin of our library."""
