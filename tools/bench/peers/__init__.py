"""Other ways to deliver the same events, set up as their documentation recommends."""
