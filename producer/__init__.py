"""The producer: turns payloads into deliveries that Redis holds."""
