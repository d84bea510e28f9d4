"""Wording that the text of `status` and the rules of health share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason_of(one: Mapping[str, Any]) -> str:
    """Return the reason for the state of a destination, trigger or job, and who caused it."""
    reason = str(one.get("message") or one["reason"])
    by = one.get("by")
    return f"{reason} (by {by})" if by and by != "segrelay" else reason


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as a person reads them."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
