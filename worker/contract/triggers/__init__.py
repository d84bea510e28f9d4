"""Facts about triggers and audiences: their meaning, versions and pauses, and renamed audiences."""
