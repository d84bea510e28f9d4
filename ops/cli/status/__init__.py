"""`segrelay status`: its options, and the text that it prints."""
