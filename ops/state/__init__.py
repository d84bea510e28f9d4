"""What Redis holds, read and changed for people: counts, what waits, and the ledger."""
