"""Reading Insider back: profiles, its panel, and a comparison with the ledger."""
