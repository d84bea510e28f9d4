"""A finding of a check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.settings import SyncSchedule

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the owner of a template or trigger should know.

    Args:
        severity: An error makes a template unfit and stops its triggers; a warning is worth a look.
        message: What is wrong and what to do; begins with the place where there is one.
        trigger: "" where it is about a template as such.
        file: "" where it is about no place.
        line: 1-based, 0 for none.
        column: 1-based, 0 for none.
    """

    severity: Severity
    message: str
    trigger: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


def in_want_of_id(
    failure: str, audiences: Sequence[str], syncs: Iterable[SyncSchedule] = ()
) -> str:
    """Say that events of audiences fail for want of an id, and what to do about it.

    Args:
        failure: The error message, with the place in the template where it is known.
        audiences: Slugs whose id is not known; none where it is not known which they are.
        syncs: As configured.
    """
    places = " and ".join(f"[sync.{one.name}]" for one in syncs if one.audience in audiences)
    audience = audiences[0] if len(audiences) == 1 else "SLUG"
    return (
        f"{failure.removesuffix('.')}. Events that are made from rows of a backfill, sync or repair"
        " have no id in segment_events as long as no id is known for"
        f" {', '.join(audiences) or 'their audience'}, and die of this: set audience_id in"
        f" {places or '[sync.NAME]'}, give --audience-id to the backfill, or map the id by"
        f" `segrelay audience set ID {audience}`."
    )
