"""One judgement of health: facts are read, rules derive problems from them, everything shows these."""
