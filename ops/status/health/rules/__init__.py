"""The rules: each derives problems of one kind from the facts, and knows nothing of the others."""
