"""Faults: killed, stopped and cut off processes and masters."""
