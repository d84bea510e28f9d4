"""The generator of the reference pages, from the settings classes and the commands."""
