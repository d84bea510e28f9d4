"""What producer, worker and ops agree on: events, triggers, settings, keys, names."""
