"""Everything that can break, broken while it works, and the count of what is wrong afterwards."""
