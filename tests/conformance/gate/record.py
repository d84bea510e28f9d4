"""What Redis remembers of a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Self

from segrelay.worker.core.gate import WHOLE

DELIVERED: Final = "ok|"
WENT: Final = "went|"


@dataclass(slots=True)
class GateRecord:
    """What is remembered of a gate; in Redis the fields of one hash. Changed in place.

    Args:
        seen: When it was changed last.
        tat: When the next regular send time would be.
        live: Until then a live request waits for its send time.
        factor: What the last lowering has left of the rate; `factor_of` says what is left now.
        incident: Counts lowerings, closings and resumptions.
        good: 1 if a request succeeded since the last lowering.
        lowered_at: When the rate was lowered last.
        failed: The factor at which a 429 came last; 0 = none remembered.
        failed_at: When it came.
        closed: Closed until then, and afterwards one probe goes first; 0 = open.
        why: It closed: `too_many_requests` or `failing`.
        closes: How often it has closed in a row.
        first: 1 = a probe goes first.
        probing: A probe is on its way, and given up at this time; 0 = none.
        failures: In a row.
        suspects: The triggers that had them, with commas.
        avoid: The batch that failed last.
        said: What failed last, for a person.
        unread: Answers in a row that could not be read.
        pause: Why it is paused; "" = it is not.
        scope: `access` = only for the credentials in `refused`; `all`.
        by: Who paused it.
        since: When.
        about: For a person: what led to the pause.
        refused: Fingerprints of credentials that were refused, with commas.
        rates: `rate@seen` of all workers, with semicolons.
        delivered: By trigger: how many deliveries it has made.
        went: By trigger: when something of it was taken last.
        noes: By trigger: the place of the only delivery in whose requests bodies were refused since
            then, or `*` for several.
        firsts: By trigger: it was resumed, and a probe of it goes first; as `probing`.
    """

    seen: int = 0
    tat: int = 0
    live: int = 0
    factor: int = WHOLE
    incident: int = 0
    good: int = 1
    lowered_at: int = 0
    failed: int = 0
    failed_at: int = 0
    closed: int = 0
    why: str = ""
    closes: int = 0
    first: int = 0
    probing: int = 0
    failures: int = 0
    suspects: str = ""
    avoid: str = ""
    said: str = ""
    unread: int = 0
    pause: str = ""
    scope: str = ""
    by: str = ""
    since: int = 0
    about: str = ""
    refused: str = ""
    rates: str = ""
    delivered: dict[str, int] = field(default_factory=dict)
    went: dict[str, int] = field(default_factory=dict)
    noes: dict[str, str] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def loads(cls, stored: Mapping[str, str]) -> Self:
        """Return the record that stands in a hash."""
        record = cls()
        kept = [each for each in fields(cls) if each.type in {"int", "str"}]
        for position in kept:
            text = stored.get(position.name)
            if text is not None:
                setattr(record, position.name, text if position.type == "str" else int(text))
        record.delivered = _by_trigger(stored, DELIVERED)
        record.firsts = {name: int(mark) for name, mark in _marks(stored.get("firsts", ""))}
        record.went = _by_trigger(stored, WENT)
        record.noes = dict(_marks(stored.get("noes", "")))
        return record


def _marks(text: str) -> list[list[str]]:
    return [each.split("@") for each in text.split(",") if each]


def _by_trigger(stored: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): int(text)
        for name, text in stored.items()
        if name.startswith(prefix)
    }
