"""The steps of a drain, in their order, and the objects that they share."""
