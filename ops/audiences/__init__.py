"""Audiences as a whole: who is in one by the ledger, and moving everybody at once."""
