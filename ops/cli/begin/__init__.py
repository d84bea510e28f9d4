"""The commands of the help's section Begin, but for `template`: init, config, demo, sandbox."""
