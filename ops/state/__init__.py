"""Readers and writers of the state in Redis that several commands share."""
