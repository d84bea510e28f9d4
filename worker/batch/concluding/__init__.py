"""The steps after the answer: do what follows from it, and settle."""
