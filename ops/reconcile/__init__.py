"""The command `segrelay reconcile`: the ledger compared with Lytics and Insider."""
