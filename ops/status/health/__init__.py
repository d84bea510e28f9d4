"""The judgement of health: rules derive problems from facts, and all outputs show them."""
