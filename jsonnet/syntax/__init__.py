"""Reads Jsonnet source: tokens, the tree that they form, and what is wrong with either."""
