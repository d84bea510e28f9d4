"""The engines that evaluate Jsonnet: which one renders a template, and which ones judge it."""
