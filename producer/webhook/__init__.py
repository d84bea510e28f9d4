"""The receiver of Lytics' webhooks."""
