"""The adapters: one module for each outside system, such as Redis, Jsonnet and HTTP."""
