"""The checks of `template check`, and repairs of damaged templates."""
