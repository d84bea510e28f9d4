"""From payloads and rows to events: who, which audience, when, and with which fields."""
