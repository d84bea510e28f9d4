"""Invented people and their events."""
