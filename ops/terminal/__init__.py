"""Options, questions, output and progress of all commands."""
