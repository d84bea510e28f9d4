"""The command `segrelay audience`, and audiences as the ledger knows them."""
