"""Outcomes as data: the end of each delivery as a row, packed in Redis and read back from there.

The script that moves a count adds the rows to a stream of its partition, so that counts and rows
never differ. `counts` is 1 in the row of an end. A dead letter that is replayed, discarded or moved
takes its death back: that row is the death once more, with -1. So the sums of `counts` by
outcome are the counts of `segrelay status`.

An entry of the stream holds the rows of one settlement: `r` is what `pack` returned, `n` their
number, `m` a mask with `1` for each row that counts (absent = all do), `t` and `b` the numbers of
rows and bytes that were ever added, with this entry. The time of an end is that of its entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import orjson

from segrelay.worker.contract.events import Header, decode_profile
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, split_stream_name
from segrelay.worker.contract.protection import OUTCOMES, PROTECTION
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import PayloadRefused

_WIDTH: Final = 2 * DIGEST_BYTES
_NOBODY: Final = "0" * _WIDTH
"""The digest of an entry that can't be read, and of somebody who was erased."""
FIELD_PREFIX: Final = "profile_"
"""The beginning of the names of columns that hold fields of the profile."""


class End(NamedTuple):
    """The end of one delivery, or where it counts -1, what takes a death back.

    Attributes:
        stream: `lane|trigger`.
        outcome: `delivered`, `skipped`, `dead` or `discarded`.
        reason: Of a skipped or a dead delivery; "" = there is none.
        template: The digest of the template that rendered it; "" = none did.
        status: Of the answer to its last request; 0 = there was none.
        attempts: The requests that carried it.
        fields: The values of the configured fields of the profile.
    """

    header: Header
    stream: str
    outcome: str
    reason: str = ""
    template: str = ""
    status: int = 0
    attempts: int = 0
    fields: Sequence[Any] = ()
    counts: int = 1


class OutcomeRow(NamedTuple):
    """A row as a warehouse gets it, its columns in this order; the profile's fields come behind.

    Attributes:
        id: Unique: `DESTINATION_ID.PARTITION.ENTRY.NUMBER`.
        time_ms: Of the end, by Redis' clock.
        person: The digest of the profile's key (hex); "" = the entry could not be read, or the
            person was erased.
        fields: Fields of the profile, by name.
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
    counts: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """The manner in which ends are recorded.

    Args:
        fields: The fields of the profile in each row.
        most_bytes: The most bytes that one partition keeps.
    """

    fields: tuple[str, ...]
    most_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return it as the configuration wants it; None = nothing is recorded."""
        wanted = settings.outcomes
        if wanted is None:
            return None
        parts = settings.redis.numbering.count * max(1, len(settings.destinations))
        return cls(wanted.fields, wanted.max_bytes // parts)

    def fields_of(self, profile: bytes) -> Sequence[Any]:
        """Return the values of the fields of a profile, given as JSON, maybe compressed."""
        if not self.fields:
            return ()
        try:
            found = orjson.loads(decode_profile(profile))
        except (PayloadRefused, orjson.JSONDecodeError):
            found = None
        return self.fields_in(found)

    def fields_in(self, profile: Any) -> Sequence[Any]:
        """Return the values of the fields of a profile; null for what it lacks."""
        known = profile if isinstance(profile, dict) else {}
        return [known.get(name) for name in self.fields]


def pack(ends: Iterable[End], fields: Sequence[str]) -> bytes:
    """Return rows as one text; what many of them have in common stands in it once.

    Args:
        ends: The rows.
        fields: The names of their fields of the profile.
    """
    kinds: dict[tuple[Any, ...], int] = {}
    of: list[int] = []
    digests: list[bytes] = []
    times: list[int] = []
    values: list[Sequence[Any]] = []
    for header, stream, outcome, reason, template, status, attempts, own, counts in ends:
        common = (
            stream, outcome, reason, header.audience, header.direction.value, template, status,
            attempts, counts,
        )  # fmt: skip
        of.append(kinds.setdefault(common, len(kinds)))
        digests.append(header.digest)
        times.append(header.time_us)
        values.append(own)
    packed = [list(kinds), of, b"".join(digests).hex(), times]
    text = orjson.dumps([*packed, fields, values] if fields else packed)
    return PROTECTION.seal(text, OUTCOMES)


def without_people(packed: bytes, people: Collection[str]) -> tuple[bytes, int]:
    """Return rows in which some people are not named, and how many rows were about them.

    Args:
        packed: What `pack` has returned.
        people: Their digests (hex).
    """
    kinds, of, digests, times, *more = orjson.loads(PROTECTION.unseal(packed, OUTCOMES))
    found = [digests[at : at + _WIDTH] for at in range(0, len(digests), _WIDTH)]
    theirs = [at for at, digest in enumerate(found) if digest in people]
    for at in theirs:
        found[at] = _NOBODY
        if more:
            more[1][at] = [None] * len(more[0])
    text = orjson.dumps([kinds, of, "".join(found), times, *more])
    return PROTECTION.seal(text, OUTCOMES), len(theirs)


def unpack(
    partition: PartitionKeys, entry_id: bytes, entry: Mapping[bytes, bytes]
) -> Iterator[OutcomeRow]:
    """Yield the rows of an entry."""
    kinds, of, digests, times, *more = orjson.loads(PROTECTION.unseal(entry[b"r"], OUTCOMES))
    mask = entry.get(b"m", b"")
    shown_id = entry_id.decode()
    time_ms = int(shown_id.partition("-")[0])
    for at, kind in enumerate(of):
        if mask and mask[at : at + 1] == b"0":
            continue
        stream, outcome, reason, audience, direction, template, status, attempts, counts = kinds[
            kind
        ]
        lane, trigger = split_stream_name(stream)
        person = digests[_WIDTH * at : _WIDTH * (at + 1)]
        yield OutcomeRow(
            f"{partition.id}.{partition.number}.{shown_id}.{at}",
            time_ms,
            "" if person == _NOBODY else person,
            audience,
            direction if times[at] else "",
            times[at],
            partition.destination,
            trigger,
            lane,
            template,
            outcome,
            reason,
            status,
            attempts,
            counts,
            dict(zip(more[0], more[1][at], strict=True)) if more else {},
        )
