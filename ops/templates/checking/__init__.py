"""The checks of `template check`, and corrections of damaged templates."""
