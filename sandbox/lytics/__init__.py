"""A stand-in for Lytics: scans, entities, collect, templates and webhooks."""
