"""Moving what Redis holds: deliveries to another trigger, a destination to another name."""
