"""The contract of producer, worker and ops: events, triggers, settings, keys, names."""
