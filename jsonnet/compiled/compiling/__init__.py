"""The compiler from a template to Python code, which runs once for each template."""
