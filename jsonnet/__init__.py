"""The Jsonnet engine: reads templates and renders events with them; see README.md."""
