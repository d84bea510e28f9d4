"""The steps before the request: read, decode, ask the ledger, render, shape."""
