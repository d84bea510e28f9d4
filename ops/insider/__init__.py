"""Readers of Insider: profiles, its panel, and checks with the configured key."""
