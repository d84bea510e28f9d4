"""The runtime of compiled templates: values, operators, printing, limits and `std`."""
