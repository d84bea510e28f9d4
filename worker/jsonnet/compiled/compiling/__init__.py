"""From a template to Python code: what happens once for each template."""
