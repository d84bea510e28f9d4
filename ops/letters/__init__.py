"""Dead letters: reading, masking, exporting and importing them; rehearsing and replaying them."""
