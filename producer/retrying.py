"""Replays of quarantined events: after a new trigger, a mended identity, or a learned id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final, Self

from producer.events.payloads import Refused
from producer.publish import Publisher
from producer.publishing.published import PublishOptions
from producer.publishing.quarantine import Quarantine, QuarantineRecord, Selection
from worker.contract.events import Event
from worker.contract.settings import Settings

_RECORDS_A_CALL: Final = 500


TOO_OLD: Final = "too_old"
"""The reason for leaving out events that the ledger no longer protects."""


@dataclass(frozen=True, slots=True)
class LedgerReach:
    """The reach of the ledger's memory, for replays of old events.

    What was accepted before that may be older than an exit which the ledger has forgotten.

    Args:
        now_ms: Redis' clock.
        retention_ms: How long an exit is remembered.
        force: Take also what lies before it.
    """

    now_ms: int
    retention_ms: int
    force: bool = False

    @classmethod
    def of(cls, settings: Settings, now_ms: int, *, force: bool) -> Self:
        """Return the reach that the configuration gives."""
        return cls(now_ms, round(1000 * settings.delivery.ledger_retention_seconds), force)

    def is_too_old(self, accepted_ms: int) -> bool:
        """Say whether an event that was accepted at this time is too old to be replayed."""
        return self.now_ms - accepted_ms > self.retention_ms and not self.force


@dataclass(slots=True)
class Retried:
    """The result of replaying records of the quarantine."""

    tried: int = 0
    placed: int = 0
    accepted: int = 0
    kept_by_reason: Counter[str] = field(default_factory=Counter)


def retry_records(
    publisher: Publisher, quarantine: Quarantine, selection: Selection, reach: LedgerReach
) -> Retried:
    """Place the selected records that can be placed now; the others stay as they are.

    A record leaves only when its deliveries are in Redis: a crash in between makes it come twice,
    and the ledger settles the second as a duplicate.

    Raises:
        RedisUnavailable: What was placed until then is placed.
    """
    retried = Retried()
    records = sorted(quarantine.records(selection), key=lambda record: record.lane)
    for lane, members in groupby(records, key=lambda record: record.lane):
        for part in _parts(members):
            within = [record for record in part if not reach.is_too_old(record.first_seen_ms)]
            too_old = len(part) - len(within)
            retried.tried += too_old
            if too_old:
                retried.kept_by_reason[TOO_OLD] += too_old
            _retry_part(publisher, quarantine, lane, within, retried)
    return retried


def _retry_part(
    publisher: Publisher,
    quarantine: Quarantine,
    lane: str,
    records: Sequence[QuarantineRecord],
    retried: Retried,
) -> None:
    events: list[Event] = []
    placed: list[str] = []
    for record in records:
        found = _read(publisher, quarantine, record)
        refused = [item for item in found if isinstance(item, Refused)]
        retried.tried += 1
        if refused or not found:
            retried.kept_by_reason[refused[0].reason.value if refused else record.reason] += 1
            continue
        events += [item for item in found if isinstance(item, Event)]
        placed.append(record.id)
    if events:
        retried.accepted += publisher.publish_retried(events, lane)
    retried.placed += quarantine.remove(placed)


def _read(
    publisher: Publisher, quarantine: Quarantine, record: QuarantineRecord
) -> list[Event | Refused]:
    text = quarantine.text(record.id)
    if not text:
        return []
    return publisher.read_again(
        text,
        PublishOptions(state=record.state, skip_hook=record.skip_hook),
        arrived_us=record.first_seen_ms * 1_000,
    )


def _parts(records: Iterable[QuarantineRecord]) -> Iterator[list[QuarantineRecord]]:
    remaining = iter(records)
    while part := list(islice(remaining, _RECORDS_A_CALL)):
        yield part
