"""The Insider side: the user API, the panel, the rules, and faults of requests."""
