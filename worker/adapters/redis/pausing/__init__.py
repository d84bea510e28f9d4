"""The reasons for which a drain pauses a trigger or a destination by itself."""
