"""Durations and rates as people write them: `"15m"`, `"1h30m"`, `"25000/min"`."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_RATE: Final = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*/\s*(s|min|h)")
_PER_MINUTE: Final = {"s": 60.0, "min": 1.0, "h": 1 / 60}
_LONGEST_SECONDS: Final = 100 * 365 * 86_400.0
_HIGHEST_PER_MINUTE: Final = 1e9
_SHOWN: Final = 40
"""Characters of a wrong value that a message repeats."""


def parse_duration(text: str) -> float:
    """Return the seconds of a text like `"15m"`.

    Raises:
        ValueError: It is not a duration, or longer than a hundred years.
    """
    stripped = text.strip()
    if not _DURATION.fullmatch(stripped):
        raise ValueError(f"{text[:_SHOWN]!r} is not a duration")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stripped))
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{text[:_SHOWN]!r} is longer than a hundred years")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def parse_rate(text: str) -> float:
    """Return the requests per minute of a text like `"25000/min"`, `"400/s"` or `"1000/h"`.

    Raises:
        ValueError: It is not a rate, or is zero or absurdly high.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a rate")
    per_minute = float(match[1]) * _PER_MINUTE[match[2]]
    if not 0 < per_minute <= _HIGHEST_PER_MINUTE:
        raise ValueError(f"{text[:_SHOWN]!r} is not a rate that can be kept")
    return per_minute


def format_rate(per_minute: float) -> str:
    """Return the text of a rate, by the minute or, for slow ones, by the hour."""
    if per_minute % 1:
        return f"{per_minute * 60:.12g}/h"
    return f"{per_minute:.0f}/min"
