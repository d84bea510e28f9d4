"""`segrelay mcp`: for programs that ask by the Model Context Protocol, such as assistants."""
