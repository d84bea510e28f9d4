"""Wording that the text of `status` and the rules of health share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason_of(one: Mapping[str, Any]) -> str:
    """Return the reason of the state of a destination or trigger."""
    return str(one.get("message") or one["reason"])


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as a person reads them."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
