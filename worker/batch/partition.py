"""A partition as a drain sees it: what it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

import orjson

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.ledger import Record, pack
from segrelay.worker.contract.records import read_row
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.backoff import Backoff, Wait
from segrelay.worker.core.ledger import may_be_member


class LedgerText(NamedTuple):
    """A profile's ledger record, packed as Redis keeps it.

    Attributes:
        lasts: True if it never lapses; else it is kept for the retention.
    """

    text: bytes
    lasts: bool = False

    @classmethod
    def of(cls, record: Record) -> Self:
        """Pack a record."""
        return cls(pack(record), may_be_member(record))


class ReadRange(NamedTuple):
    """A range to read: a number of entries of a stream behind an id ("" = its beginning)."""

    stream: str
    after_id: str
    most: int


class ReadEntries(NamedTuple):
    """The entries found in a range of a stream.

    Attributes:
        is_all: The stream ends with these entries.
    """

    entries: list[Delivery]
    is_all: bool


class IntendedDelivery(NamedTuple):
    """One delivery as an intent stores it.

    Attributes:
        position: `lane|trigger|id`; "" = it stands for no delivery and only holds others back.
    """

    position: str
    digest: bytes
    audience: str
    direction: Direction
    time_us: int
    replays: int = 0

    @property
    def trigger(self) -> str:
        """Return the name of the delivery's trigger."""
        return split_stream_name(self.position.rpartition("|")[0])[1] if self.position else ""


@dataclass(frozen=True, slots=True)
class Intent:
    """The intent that is written before a request.

    Args:
        deliveries: All that the request carries, of whichever triggers.
        open_until_ms: Its end, if it is open (Redis' clock); 0 = the request is under way.
    """

    intent_id: str
    deliveries: tuple[IntendedDelivery, ...]
    open_until_ms: int = 0

    @property
    def triggers(self) -> tuple[str, ...]:
        """Return the names of the triggers whose deliveries the intent holds."""
        streams = dict.fromkeys(d.position.rpartition("|")[0] for d in self.deliveries)
        return tuple(dict.fromkeys(split_stream_name(name)[1] if name else "" for name in streams))

    def dumps(self) -> bytes:
        """Return the text that Redis keeps."""
        rows = [
            [d.position, d.digest.hex(), d.audience, d.direction.value, d.time_us, d.replays]
            for d in self.deliveries
        ]
        return orjson.dumps(rows)

    @classmethod
    def loads(cls, intent_id: str, text: bytes, open_until_ms: int) -> Intent:
        """Read an intent from the text that `dumps` returned."""
        deliveries = tuple(
            read_row(
                IntendedDelivery, (position, bytes.fromhex(who), audience, Direction(to), *more)
            )
            for position, who, audience, to, *more in orjson.loads(text)
        )
        return cls(intent_id, deliveries, open_until_ms)


class Hold(NamedTuple):
    """A hold: all entries of a stream up to `last_id` wait until `until_ms`, by Redis' clock.

    Attributes:
        edition: The edition of its trigger, see `LoadedTrigger.edition`; "" = not known.
    """

    last_id: str
    until_ms: int
    edition: str = ""


@dataclass(frozen=True, slots=True)
class TakenPartition:
    """The state of a partition that the holder of a new lease starts from.

    Args:
        now_ms: Redis' clock.
        streams: The names of the streams that are not empty.
        intents: The open ones, and those of a holder that vanished.
        rendering: The positions of deliveries that a vanished holder was rendering.
        waits: By trigger.
        backoffs: By position.
        holds: By stream.
        reached_up_to: People who are reached and have a larger digest (hex) are not told to
            `settle`; "" = all are told.
    """

    now_ms: int
    streams: tuple[str, ...]
    intents: tuple[Intent, ...]
    rendering: frozenset[str]
    waits: Mapping[str, Wait]
    backoffs: Mapping[str, Backoff]
    holds: Mapping[str, Hold]
    reached_up_to: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that the settling script writes at once.

    Args:
        settled: Deliveries, each with its outcome.
        intent_id: Of the request; "" = no request was made.
        open_seconds: The time for which the intent stays open; 0 = it is closed.
        ledgers: By digest, one text per profile: its packed record at the moment of writing. It is
            written if a request was made, or if a delivery that it tells of was still there.
        waits: By trigger; None = it waits no longer.
        backoffs: By position. Backoffs of deliveries that are gone are not kept.
        counts: Additions to further fields of `counts`.
        retried: Deliveries that have failed, and are tried again or settled as dead.
        retry_message: The reason.
        reached: For `verify`, by digest (hex) of each person to whom something was delivered: JSON
            of now (ms) and of the identifiers by which the destination knows the person.
    """

    settled: Sequence[Delivery] = ()
    intent_id: str = ""
    open_seconds: float = 0.0
    ledgers: Mapping[bytes, LedgerText] = field(default_factory=dict)
    waits: Mapping[str, Wait | None] = field(default_factory=dict)
    backoffs: Mapping[str, Backoff] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    retried: Sequence[Delivery] = ()
    retry_message: str = ""
    reached: Mapping[str, bytes] = field(default_factory=dict)
    responses: Sequence[bytes] = ()


class Release(NamedTuple):
    """The result of giving a lease back.

    Attributes:
        due: Some work may be done now.
        wake: The queue to wake on; "" = there is no work, or somebody was woken already.
    """

    released: bool
    due: bool
    wake: Literal["live", "backfill", ""]
