"""Insider: what a body has to be, and what its answers mean."""
