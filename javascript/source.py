"""Finds names of fields in the text of a template, without parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_COMMENT_OR_TEXT: Final = re.compile(
    r"//[^\n]*|/\*.*?\*/|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)", re.DOTALL
)
_PROFILE: Final = re.compile(r"\btemplate\s*=?\s*(?:function\s*\w*\s*)?\(\s*(\w+)\s*[,)]")
_GET: Final = r"\b(?:get(?:FirstField)?|has)\(\s*[\"'](\w+)[\"']"
_NO_FIELD: Final = frozenset({"hasOwnProperty", "toString", "valueOf", "constructor"})


def without_comments(text: str) -> str:
    """Return a text in which blanks stand in the place of comments."""
    return _COMMENT_OR_TEXT.sub(
        lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]),
        text,
    )


def fields_read(text: str) -> Iterator[tuple[str, int]]:
    """Yield the fields of the profile that a template reads by name, and where.

    `get` and `has` are functions of the libraries of JavaScript and of Jsonnet.
    """
    code = without_comments(text)
    patterns = [_GET]
    if profile := _PROFILE.search(code):
        name = profile[1]
        patterns.append(rf"\b{name}(?:\?\.|\.)([A-Za-z_$]\w*)(?!\s*\()")
        patterns.append(rf"\b{name}\[\s*[\"'](\w+)[\"']\s*\]")
    for pattern in patterns:
        for found in re.finditer(pattern, code):
            if found[1] not in _NO_FIELD:
                yield found[1], found.start(1)
