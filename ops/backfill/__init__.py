"""Backfills, as a person sees them: how they start, how they stand, and their reports."""
