"""Continuous sync: an audience of Lytics is compared with what is known of it, again and again."""
