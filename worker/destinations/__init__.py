"""The APIs: how bodies combine into one request, what is valid, how an answer is read."""
