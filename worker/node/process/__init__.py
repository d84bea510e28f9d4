"""What a process drains with, and how that follows the template files."""
