"""Backfills: jobs that bring whole files or audiences in, and can be stopped and resumed."""
