"""Facts about people that producers write down: changed identities, and the names of fields."""
