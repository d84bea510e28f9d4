"""Random templates, rendered by the compiled form and by the engines, and compared."""
