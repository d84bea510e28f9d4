"""The outcome log: the end of each delivery as a row, packed in a capped stream of its partition.

The script that moves a count adds the rows, so that counts and rows never differ. `counts` is 1 in
the row of an end, and 0 in that of a failed try. A dead letter that is replayed or discarded takes
its death back: that row is the death once more, with -1. So the sums of `counts` by outcome are the
counts of `segrelay status`, as far back as rows are kept.

An entry of the stream holds the rows of one settlement: `r` is what `pack` returned, `m` a mask
with `1` for each row that counts (absent = all do). The time of an end is that of its entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, split_stream_name
from segrelay.worker.contract.protection import OUTCOMES, PROTECTION
from segrelay.worker.contract.settings import Settings

_WIDTH: Final = 2 * DIGEST_BYTES
_MESSAGE: Final = 8
"""The position of the message in what rows have in common."""
_NOBODY: Final = "0" * _WIDTH
"""The digest of an entry that can't be read, and of somebody who was erased."""


RETRY: Final = "retry"
"""The outcome of an attempt after which the delivery is tried again; it counts 0."""


class End(NamedTuple):
    """The end of one delivery, or where it counts -1, what takes a death back.

    Attributes:
        stream: `lane|trigger`.
        outcome: `delivered`, `skipped`, `dead`, `discarded` or `RETRY`.
        reason: Of a skipped or a dead delivery; "" = there is none.
        template: The digest of the template that rendered it; "" = none did.
        status: Of the answer to its last request; 0 = there was none.
        attempts: The requests that carried it.
        message: What is said about the outcome; "" = nothing.
    """

    header: Header
    stream: str
    outcome: str
    reason: str = ""
    template: str = ""
    status: int = 0
    attempts: int = 0
    message: str = ""
    counts: int = 1


class OutcomeRow(NamedTuple):
    """A row as a warehouse gets it, its columns in this order.

    Attributes:
        id: Unique: `DESTINATION_ID.PARTITION.ENTRY.NUMBER`.
        time_ms: Of the end, by Redis' clock.
        person: The digest of the profile's key (hex); "" = the entry could not be read, or the
            person was erased.
    """

    id: str
    time_ms: int
    person: str
    audience: str
    direction: str
    event_time_us: int
    destination: str
    trigger: str
    lane: str
    template: str
    outcome: str
    reason: str
    status: int
    attempts: int
    message: str
    counts: int


def log_bytes(settings: Settings) -> int:
    """Return the most bytes of the log of one partition."""
    parts = settings.redis.partitions * max(1, len(settings.destinations))
    return settings.outcomes.max_bytes // parts


def pack(ends: Iterable[End]) -> bytes:
    """Return rows as one text; what many of them have in common stands in it once."""
    kinds: dict[tuple[Any, ...], int] = {}
    of: list[int] = []
    digests: list[bytes] = []
    times: list[int] = []
    for header, stream, outcome, reason, template, status, attempts, message, counts in ends:
        common = (
            header.audience, header.direction.value, stream, template, outcome, reason, status,
            attempts, message, counts,
        )  # fmt: skip
        of.append(kinds.setdefault(common, len(kinds)))
        digests.append(header.digest)
        times.append(header.time_us)
    return _sealed(kinds, of, b"".join(digests).hex(), times)


def _sealed(kinds: Iterable[Any], *more: Any) -> bytes:
    return PROTECTION.seal(orjson.dumps([list(kinds), *more]), OUTCOMES)


def without_people(packed: bytes, people: Collection[str]) -> tuple[bytes, int]:
    """Return rows in which some people are not named, and how many rows were about them.

    Args:
        packed: What `pack` has returned.
        people: Their digests (hex).
    """
    kinds, of, digests, *times = orjson.loads(PROTECTION.unseal(packed, OUTCOMES))
    found = [digests[at : at + _WIDTH] for at in range(0, len(digests), _WIDTH)]
    theirs = [at for at, digest in enumerate(found) if digest in people]
    for at in theirs:
        found[at] = _NOBODY
        kind = kinds[of[at]]
        if kind[_MESSAGE]:  # it may quote what is the person's own
            of[at] = len(kinds)
            kinds.append([*kind[:_MESSAGE], "", *kind[_MESSAGE + 1 :]])
    left = sorted(set(of))
    return (
        _sealed((kinds[at] for at in left), [left.index(at) for at in of], "".join(found), *times),
        len(theirs),
    )


def unpack(
    partition: PartitionKeys,
    entry_id: bytes,
    entry: Mapping[bytes, bytes],
    people: Collection[str] | None = None,
) -> Iterator[OutcomeRow]:
    """Yield the rows of an entry, or those about these people (digests, in hex)."""
    kinds, of, digests, times, *_ = orjson.loads(PROTECTION.unseal(entry[b"r"], OUTCOMES))
    if people is not None and not any(digest in digests for digest in people):
        return
    mask = entry.get(b"m", b"")
    shown_id = entry_id.decode()
    time_ms = int(shown_id.partition("-")[0])
    for at, kind in enumerate(of):
        if mask[at : at + 1] == b"0":
            continue
        audience, direction, stream, *about = kinds[kind][: _MESSAGE + 2]
        lane, trigger = split_stream_name(stream)
        person = digests[_WIDTH * at : _WIDTH * (at + 1)]
        if people is not None and person not in people:
            continue
        yield OutcomeRow(
            f"{partition.destination}.{partition.number}.{shown_id}.{at}",
            time_ms,
            "" if person == _NOBODY else person,
            audience,
            direction if times[at] else "",
            times[at],
            partition.destination,
            trigger,
            lane,
            *about,
        )
