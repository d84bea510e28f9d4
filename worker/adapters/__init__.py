"""One module per outside thing: Redis, Jsonnet, HTTP."""
