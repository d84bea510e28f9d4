"""The kinds of values that a configuration holds: durations, URLs, addresses and secrets."""
