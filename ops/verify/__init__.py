"""The command `segrelay verify`: what Insider holds compared with the ledger."""
