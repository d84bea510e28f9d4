"""Replays of quarantined events: after a new trigger, a mended identity, or a learned id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final

from segrelay.producer.events.payloads import Refused
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord, Selection
from segrelay.worker.contract.events import Event

_RECORDS_A_CALL: Final = 500


@dataclass(slots=True)
class Retried:
    """The result of replaying records of the quarantine."""

    tried: int = 0
    placed: int = 0
    accepted: int = 0
    kept_by_reason: Counter[str] = field(default_factory=Counter)


def retry_records(
    publisher: Publisher,
    quarantine: Quarantine,
    selection: Selection,
    *,
    older_than_ledger: bool = False,
) -> Retried:
    """Place the selected records that can be placed now; the others stay as they are.

    A record leaves only when its deliveries are in Redis: a crash in between makes it come twice,
    and the ledger settles the second as a duplicate.

    Args:
        publisher: With today's configuration.
        quarantine: The records.
        selection: Which of them.
        older_than_ledger: Place also events that are older than what the ledger remembers.

    Raises:
        RedisUnavailable: What was placed until then is placed.
    """
    retried = Retried()
    records = sorted(quarantine.records(selection), key=lambda record: record.lane)
    for lane, members in groupby(records, key=lambda record: record.lane):
        for part in _parts(members):
            options = PublishOptions(lane, older_than_ledger=older_than_ledger)
            _retry_part(publisher, quarantine, options, part, retried)
    return retried


def _retry_part(
    publisher: Publisher,
    quarantine: Quarantine,
    options: PublishOptions,
    records: Sequence[QuarantineRecord],
    retried: Retried,
) -> None:
    events: list[Event] = []
    placed: list[str] = []
    for record in records:
        found = _read(publisher, quarantine, record, options)
        refused = [item for item in found if isinstance(item, Refused)]
        retried.tried += 1
        if refused or not found:
            retried.kept_by_reason[refused[0].reason.value if refused else record.reason] += 1
            continue
        events += [item for item in found if isinstance(item, Event)]
        placed.append(record.id)
    if events:
        retried.accepted += publisher.publish_retried(events, options.lane)
    retried.placed += quarantine.remove(placed)


def _read(
    publisher: Publisher, quarantine: Quarantine, record: QuarantineRecord, options: PublishOptions
) -> list[Event | Refused]:
    text = quarantine.text(record.id)
    if not text:
        return []
    return publisher.read_again(
        text,
        options._replace(state=record.state, skip_hook=record.skip_hook),
        arrived_us=record.first_seen_ms * 1_000,
    )


def _parts(records: Iterable[QuarantineRecord]) -> Iterator[list[QuarantineRecord]]:
    remaining = iter(records)
    while part := list(islice(remaining, _RECORDS_A_CALL)):
        yield part
