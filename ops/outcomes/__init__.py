"""Outcomes as data: rows about the ends of deliveries, written to rolling files and exported."""
