"""What a template makes of events, and what a change of it would change."""
