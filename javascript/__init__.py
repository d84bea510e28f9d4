"""Renders templates in JavaScript: Lytics' type `js1`, a function `template` of the profile.

README.md says more.
"""
