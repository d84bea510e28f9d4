"""All that is known to be wrong with a template, with the line, and what can be put right."""
