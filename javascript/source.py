"""Finds names of fields in the text of a template in JavaScript, without parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_COMMENT_OR_TEXT: Final = re.compile(
    r"//[^\n]*|/\*.*?\*/|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)", re.DOTALL
)
_PROFILE: Final = re.compile(r"\btemplate\s*=?\s*(?:function\s*\w*\s*)?\(\s*(\w+)\s*[,)]")
_GET: Final = r"\bget(?:FirstField)?\(\s*[\"'](\w+)[\"']"
_NO_FIELD: Final = frozenset({"hasOwnProperty", "toString", "valueOf", "constructor"})
_LOCALE: Final = re.compile(r"\.(toLocale\w*String|localeCompare)\b")


def without_comments(text: str) -> str:
    """Return a text in which blanks stand in the place of comments."""
    return _COMMENT_OR_TEXT.sub(
        lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]),
        text,
    )


def fields_read(text: str) -> Iterator[tuple[str, int]]:
    """Yield the fields of the profile that a template reads by name, and where."""
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


def calls_by_locale(text: str) -> Iterator[tuple[str, int]]:
    """Yield the calls whose result depends on a locale, and where; QuickJS knows no locales."""
    for found in _LOCALE.finditer(without_comments(text)):
        yield found[1], found.start(1)
