"""Random profiles, whose fields may be missing or of an unexpected type."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from ops.fuzz.parts import FIELDS

_EVENTS: Final = (
    {"id": "0a" * 16, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"},
    {"id": "0b" * 16, "slug": "old", "event": "exit", "exit": "2026-11-01T10:00:00Z"},
    {"id": "0c" * 16, "slug": "a", "event": "change"},
)
_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "email": ("ann@example.com", "", "É@example.com"),
    "age": (34, 0, -1, 1.5, "34", 3.0, 12345678901, -0.0, 0.1, -2.5, 0.95, 1e-7, 1e21),
    "name": ("Ann", "日本語", ' "x" ', "a"),
    "tags": ([], ["a", "b", "a"], [1, 2.5, None], ["x"], [3, 1, 2]),
    "map": ({}, {"a": 1}, {"b": [1, {"a": None}], "a": "x"}, {"email": True}),
    "rows": ([{"a": 1}, {"a": 2}], [], [{"b": "x"}], [[1], [2, 3]]),
    "flag": (True, False),
    "nothing": (None,),
    "city": ("Springfield", "São Paulo", ""),
    "text": ("one two", "a,b,c", "12", "\n\t", "%s"),
    "_segments": (["vip", "news"], [], [""]),
}
_ODD: Final[tuple[Any, ...]] = (None, True, 7, "", [], {}, "x", [None], 0.5)
SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"setting": "s", "field": "email"},
    {"setting": None, "field": "map"},
)


def person(random: Random) -> dict[str, Any]:
    """Return a random profile."""
    profile: dict[str, Any] = {}
    for name in FIELDS:
        if name in _VALUES and random.random() < 0.8:  # noqa: PLR2004
            is_odd = random.random() < 0.1  # noqa: PLR2004
            profile[name] = random.choice(_ODD if is_odd else _VALUES[name])
    if random.random() < 0.95:  # noqa: PLR2004
        profile["segment_events"] = [random.choice(_EVENTS)]
    return profile
