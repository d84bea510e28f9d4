"""One judgement of health: rules derive problems from facts, and everything shows these."""
