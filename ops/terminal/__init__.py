"""How commands read options, ask questions, and print to a terminal."""
