"""Reading dead letters: over all partitions, newest first, filtered; and their causes."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis import Redis

from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.core.messages import normalise_message

REPLAYS_IN_VAIN: Final = 3
"""After so many a letter is exhausted: replayed only if it is named."""

_READ_AT_ONCE: Final = 100
"""Letters; one may hold a profile of a megabyte."""

_PROFILE: Final = b',"profile":'

StoredLetter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; an empty one means all.

    Args:
        ids: If any, nothing else counts.
        digest: Hex, of the profile; "" = any.
        since_ms: Of the death.
        until_ms: Of the death; 0 = no end.
    """

    ids: frozenset[str] = frozenset()
    causes: frozenset[str] = frozenset()
    trigger: str = ""
    audience: str = ""
    reason: str = ""
    digest: str = ""
    since_ms: int = 0
    until_ms: int = 0

    def holds(self, letter: StoredLetter) -> bool:
        """Say whether a letter is meant; its time has been looked at."""
        return (
            (not self.causes or letter["cause"] in self.causes)
            and self.trigger in ("", letter["trigger"])
            and self.audience in ("", letter["audience"])
            and self.reason in ("", letter["reason"])
            and self.digest in ("", digest_of(letter))
        )


@dataclass(frozen=True, slots=True)
class Cause:
    """Letters that died of the same.

    Args:
        triggers: How many of each.
        sample: Id of one of them.
    """

    cause: str
    count: int
    reason: str
    status: int
    message: str
    trigger: str
    sample: str


def digest_of(letter: StoredLetter) -> str:
    """Return the digest of a letter's profile, hex."""
    header = letter["header"]
    return str(header[1]) if header else ""


def place_of(letter_id: str) -> tuple[str, int] | None:
    """Return destination and partition of a letter, which its id begins with; None = no id."""
    destination, _, rest = letter_id.partition(".")
    number, _, short = rest.partition(".")
    if not (destination and short and number.isascii() and number.isdigit()):
        return None
    return destination, int(number)


def is_exhausted(letter: StoredLetter) -> bool:
    """Say whether it was replayed in vain so often that only a person who names it may again."""
    return int(letter["replays"]) >= REPLAYS_IN_VAIN


def find_letters(
    client: Redis, places: Sequence[PartitionKeys], wanted: Filter = Filter()
) -> Iterator[StoredLetter]:
    """Yield letters, newest death first; what dies meanwhile may be missing.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    if wanted.ids:
        yield from _named(client, places, wanted)
        return
    streams = [_of_partition(client, place, wanted) for place in places]
    for _, letter in heapq.merge(*streams, key=lambda found: -found[0]):
        if wanted.holds(letter):
            yield letter


def _named(
    client: Redis, places: Sequence[PartitionKeys], wanted: Filter
) -> Iterator[StoredLetter]:
    known = {(place.destination, place.partition): place for place in places}
    groups: defaultdict[PartitionKeys, list[str]] = defaultdict(list)
    for letter_id in sorted(wanted.ids):
        place = known.get(place_of(letter_id) or ("", -1))
        if place is not None:
            groups[place].append(letter_id)
    for place, ids in groups.items():
        for first in range(0, len(ids), _READ_AT_ONCE):
            part = ids[first : first + _READ_AT_ONCE]
            with redis_errors():
                texts: Any = client.hmget(place.letters, part)
            yield from (_parsed(text) for text in texts if text is not None)


def _of_partition(
    client: Redis, place: PartitionKeys, wanted: Filter
) -> Iterator[tuple[float, StoredLetter]]:
    first = 0
    latest = wanted.until_ms or "+inf"
    while True:
        with redis_errors():
            rows: Any = client.zrevrangebyscore(
                place.lettertimes,
                latest,
                wanted.since_ms,
                start=first,
                num=_READ_AT_ONCE,
                withscores=True,
            )
            texts: Any = client.hmget(place.letters, [row[0] for row in rows]) if rows else ()
        for (_, died_ms), text in zip(rows, texts, strict=True):
            if text is not None:
                yield died_ms, _parsed(text)
        if len(rows) < _READ_AT_ONCE:
            return
        first += len(rows)


def _parsed(text: bytes) -> StoredLetter:
    """Read a letter; where the profile, which stands last, is no JSON, without it."""
    letter: StoredLetter
    try:
        letter = orjson.loads(text)
    except orjson.JSONDecodeError:
        letter = orjson.loads(text.partition(_PROFILE)[0] + b"}")
        letter["profile"] = None
    return letter


def read_causes(client: Redis, places: Sequence[PartitionKeys]) -> list[Cause]:
    """Return what letters died of, the most frequent first.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for place in places:
            pipe.hgetall(place.causes)
        answers = pipe.execute()
    counts: Counter[str] = Counter()
    samples: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for name, text in answer.items():
            cause, is_count = _cause_of(name.decode())
            if is_count:
                counts[cause] += int(text)
            else:
                samples.setdefault(cause, orjson.loads(text))
    _refresh(client, places, samples)
    return [
        _cause(cause, count, samples.get(cause, {}))
        for cause, count in counts.most_common()
        if count > 0
    ]


def _refresh(
    client: Redis, places: Sequence[PartitionKeys], samples: dict[str, dict[str, Any]]
) -> None:
    """Name another letter where the one that was the sample has been taken away."""
    named = Filter(frozenset(str(sample["letter"]) for sample in samples.values()))
    there = {letter["id"] for letter in find_letters(client, places, named)} if samples else set()
    gone = {cause for cause, sample in samples.items() if sample["letter"] not in there}
    while gone:
        letter = next(find_letters(client, places, Filter(causes=frozenset(gone))), None)
        if letter is None:
            return
        samples[letter["cause"]]["letter"] = letter["id"]
        gone.remove(letter["cause"])


def _cause_of(name: str) -> tuple[str, bool]:
    cause, _, kind = name.partition("|")
    return cause, kind == "n"


def _cause(cause: str, count: int, sample: dict[str, Any]) -> Cause:
    return Cause(
        cause,
        count,
        str(sample.get("reason", "")),
        int(sample.get("status", 0)),
        normalise_message(str(sample.get("message", ""))),
        str(sample.get("trigger", "")),
        str(sample.get("letter", "")),
    )


def letters_kept(client: Redis, places: Iterable[PartitionKeys]) -> int:
    """Return how many letters lie in these partitions; one command each, in one round trip."""
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for place in places:
            pipe.hlen(place.letters)
        return sum(pipe.execute())
