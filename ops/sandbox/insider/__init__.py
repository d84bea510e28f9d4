"""The Insider side: its user API, its panel, its rules, and what goes wrong with a request."""
