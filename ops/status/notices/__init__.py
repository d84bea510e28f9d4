"""Messages to people: one when a problem begins, and one when it is over."""
