"""The steps of `producer/publish.py`: match, draft, find room, write, quarantine."""
