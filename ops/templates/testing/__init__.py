"""Test cases of templates: files beside them that say what an event becomes."""
