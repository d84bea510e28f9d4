"""How everyone gets at Redis, and the one script by which deliveries come in."""
