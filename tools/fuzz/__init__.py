"""A fuzzer that compares compiled templates with the Jsonnet engines on random templates."""
