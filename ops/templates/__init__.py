"""Templates as their authors work on them: try, test, check, compare, push."""
