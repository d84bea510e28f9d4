"""What becomes of one batch: the steps of a drain, in their order, and what they share."""
