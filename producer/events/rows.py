"""Turning rows into payloads: a profile gets the job's event, a webhook's body keeps its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from producer.events.payloads import SEGMENT_EVENTS, Payload


@dataclass(frozen=True, slots=True)
class RowMeaning:
    """The meaning of a job's rows: which audience they list, and as of when.

    Args:
        audience: The slug.
        audience_id: "" = not told; templates that read it find none.
        at: RFC 3339; when the rows were true. "" where each row says it itself.
        column: The field in which it does; "" where all have the same time.
    """

    audience: str
    audience_id: str
    direction: Literal["enter", "exit"]
    at: str
    column: str = ""

    @property
    def as_of(self) -> str:
        """Return the time in the form in which an operator gave it."""
        return f"column:{self.column}" if self.column else self.at

    def entry(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the segment event of one row: a new object, which the payload takes over."""
        known = {"id": self.audience_id} if self.audience_id else {}
        at = row.get(self.column) if self.column else self.at
        return {**known, "slug": self.audience, "event": self.direction, self.direction: at}


def payloads_of(row: Payload, membership: RowMeaning | None) -> Iterator[Payload]:
    """Yield the payloads that are published for one row.

    Args:
        row: As a source reads it; it may be an array of several.
        membership: None where every row has to bring its own events.
    """
    if row.error or membership is None:
        yield row
    elif isinstance(row.value, list):
        for index, value in enumerate(row.value):
            yield _with_event(Payload(b"", value, row.line, index), membership)
    else:
        yield _with_event(row, membership)


def _with_event(row: Payload, membership: RowMeaning) -> Payload:
    if not isinstance(row.value, dict) or has_own_events(row.value):
        return row
    value = {**row.value, SEGMENT_EVENTS: [membership.entry(row.value)]}
    return Payload(row.text, value, row.line, row.index, state=True)


def is_row(value: Any) -> bool:
    """Say whether a parsed value is a profile without events: a row of a table."""
    if not isinstance(value, dict) or not value or SEGMENT_EVENTS in value:
        return False
    return not isinstance(value.get("data"), dict) or is_row(value["data"])


def has_own_events(value: dict[str, Any]) -> bool:
    """Say whether a row is a webhook's payload, in any of its forms."""
    if SEGMENT_EVENTS in value:
        return True
    return isinstance(value.get("data"), dict) and ("meta" in value or "specversion" in value)
