"""Limits what a few bytes may be multiplied to: each event of a payload carries its profile."""

from __future__ import annotations

from typing import Final

from worker.contract.words import Refusal
from worker.errors import PayloadRefused

FEW_EVENTS: Final = 16
"""The number of events that are never too heavy: an ordinary payload needs no look at its size."""
_MOST_BYTES: Final = 16 * 1024 * 1024


def refuse_heavy(events: int, profile_bytes: int) -> None:
    """Refuse a payload whose events would take more than 16 MiB together.

    Raises:
        PayloadRefused: `too_large`.
    """
    if events * profile_bytes > _MOST_BYTES:
        raise PayloadRefused(
            Refusal.TOO_LARGE,
            f"{events:,} segment events carry a profile of {profile_bytes:,} bytes each: "
            "split the payload.",
        )
