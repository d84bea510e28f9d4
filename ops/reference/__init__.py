"""The reference pages of the documents, written from the settings classes and the commands."""
