"""Pure decisions: no IO, no clock, no randomness; those are arguments."""
