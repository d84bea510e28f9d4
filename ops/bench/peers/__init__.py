"""What a person could choose instead, as a good engineer would write it."""
