"""Reading dead letters: over all partitions, newest first, filtered; and their causes."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from segrelay.ops.kept import EVERYTHING, Filter
from segrelay.ops.state.partitions import ask_each
from segrelay.worker.batch.delivery import unseal_dead_letter
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.core.messages import normalise_message

REPLAYS_IN_VAIN: Final = 3
"""Replays in vain after which a letter is replayed only if its id is named."""
_READ_AT_ONCE: Final = 100
"""Letters read in one call: few, because a letter may hold a profile of a megabyte."""
_READ_FIRST: Final = 8
"""Deaths of a partition that are read first: who wants the newest few reads few of each."""

PROFILE: Final = b',"profile":'

StoredDeadLetter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of death, and the letters that died of it."""

    cause: str
    count: int
    reason: str
    status: int
    message: str
    trigger: str
    sample: str


def digest_of(dead_letter: StoredDeadLetter) -> str:
    """Return the digest of a letter's profile, hex."""
    header = dead_letter["header"]
    return str(header[1]) if header else ""


def place_of(dead_letter_id: str) -> tuple[str, int] | None:
    """Return the destination and the partition with which a letter's id begins.

    None for what is no id of a letter.
    """
    destination, _, rest = dead_letter_id.partition(".")
    number, _, short = rest.partition(".")
    if not (destination and short and number.isascii() and number.isdigit()):
        return None
    return destination, int(number)


def is_exhausted(dead_letter: StoredDeadLetter) -> bool:
    """Say whether a letter has reached the limit of replays in vain."""
    return int(dead_letter["replays"]) >= REPLAYS_IN_VAIN


def find_dead_letters(
    client: Redis,
    partitions: Sequence[PartitionKeys],
    wanted: Filter = EVERYTHING,
    most: int = sys.maxsize,
) -> Iterator[StoredDeadLetter]:
    """Yield letters, the newest death first; those that are added meanwhile may be missing.

    Args:
        client: Redis.
        partitions: The partitions to look in.
        wanted: The letters that are yielded.
        most: The number of letters that are looked at; ids are all looked up.
    """
    if wanted.ids:
        yield from _named(client, partitions, wanted)
        return
    digests = [each.encode() for each in wanted.digests]
    for death, text in islice(walk_deaths(client, partitions, wanted), most):
        # Most letters are of others: what can't be of one of them is not parsed.
        if text is not None and (not digests or any(each in text for each in digests)):
            dead_letter = dead_letter_at(death.partition, text)
            if matches(dead_letter, wanted):
                yield dead_letter


class TimeOfDeath(NamedTuple):
    """The place of a dead letter in the order of deaths, which is read without the letter.

    Of those who died in one millisecond, the one with the greater id comes first.
    """

    at_ms: int
    id: bytes
    partition: PartitionKeys

    @property
    def cursor(self) -> str:
        """Return the text with which a walk goes on behind this letter."""
        return f"{self.at_ms}.{self.id.decode()}"


def walk_deaths(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter, behind: str = ""
) -> Iterator[tuple[TimeOfDeath, bytes | None]]:
    """Yield all deaths, the newest first, each with its letter's text; None = it has gone.

    Args:
        client: Redis.
        partitions: The partitions to look in.
        wanted: The period to look in; its other filters are not applied.
        behind: The cursor of the last death that is known already; "" = none is.
    """
    last, most = behind, _READ_FIRST
    while True:
        deaths, is_whole = _deaths(client, partitions, wanted, last, most)
        for first in range(0, len(deaths), _READ_AT_ONCE):
            part = deaths[first : first + _READ_AT_ONCE]
            yield from zip(part, _texts(client, part), strict=True)
        if is_whole:
            return
        last, most = deaths[-1].cursor, min(_READ_AT_ONCE, 2 * most)


def _deaths(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter, behind: str, most: int
) -> tuple[list[TimeOfDeath], bool]:
    """Return the next deaths behind a cursor, the newest first, and whether these are all.

    Where a partition has more than `most`, what is older than the last that was read of it is left
    out.
    """
    behind_ms, _, behind_id = behind.partition(".")
    found = []
    if behind:  # of this very millisecond, however many they are
        same = ask_each(
            client,
            partitions,
            lambda pipe, one: pipe.zrangebyscore(one.dead_letter_times, behind_ms, behind_ms),
        )
        found = [
            TimeOfDeath(int(behind_ms), name, partition)
            for partition, names in zip(partitions, same, strict=True)
            for name in names
            if name < behind_id.encode()
        ]
    latest = f"({behind_ms}" if behind else wanted.until_ms or "+inf"
    answers = ask_each(
        client,
        partitions,
        lambda pipe, one: pipe.zrevrangebyscore(
            one.dead_letter_times, latest, wanted.since_ms, start=0, num=most, withscores=True
        ),
    )
    horizon: TimeOfDeath | None = None
    for partition, rows in zip(partitions, answers, strict=True):
        deaths = [TimeOfDeath(int(at_ms), name, partition) for name, at_ms in rows]
        found += deaths
        if len(deaths) == most:
            horizon = max(horizon or deaths[-1], deaths[-1])
    found.sort(reverse=True)
    return [one for one in found if horizon is None or one >= horizon], horizon is None


def _texts(client: Redis, deaths: Sequence[TimeOfDeath]) -> Iterator[bytes | None]:
    groups: defaultdict[PartitionKeys, list[bytes]] = defaultdict(list)
    for one in deaths:
        groups[one.partition].append(one.id)
    answers = ask_each(client, groups, lambda pipe, one: pipe.hmget(one.dead_letters, groups[one]))
    texts = {partition: iter(answer) for partition, answer in zip(groups, answers, strict=True)}
    return (next(texts[one.partition]) for one in deaths)


def matches(dead_letter: StoredDeadLetter, wanted: Filter) -> bool:
    """Say whether a filter matches a letter; its time was compared before."""
    return (
        (not wanted.causes or dead_letter["cause"] in wanted.causes)
        and wanted.destination in ("", dead_letter["destination"])
        and wanted.trigger in ("", dead_letter["trigger"])
        and (not wanted.job or dead_letter["stream"].startswith(f"{lane_of_job(wanted.job)}|"))
        and wanted.audience in ("", dead_letter["audience"])
        and wanted.reason in ("", dead_letter["reason"])
        and (not wanted.digests or digest_of(dead_letter) in wanted.digests)
        and (not wanted.containing or _has(dead_letter, wanted.containing))
    )


def _has(dead_letter: StoredDeadLetter, text: str) -> bool:
    """Say whether a text stands in what a letter shows without being revealed."""
    return text.casefold() in normalise_message(dead_letter["message"]).casefold()


def _named(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter
) -> Iterator[StoredDeadLetter]:
    known = {(partition.destination, partition.number): partition for partition in partitions}
    groups: defaultdict[PartitionKeys, list[str]] = defaultdict(list)
    for dead_letter_id in sorted(wanted.ids):
        partition = known.get(place_of(dead_letter_id) or ("", -1))
        if partition:
            groups[partition].append(dead_letter_id)
    for partition, ids in groups.items():
        for first in range(0, len(ids), _READ_AT_ONCE):
            part = ids[first : first + _READ_AT_ONCE]
            texts: Any = client.hmget(partition.dead_letters, part)
            yield from (dead_letter_at(partition, text) for text in texts if text is not None)


def dead_letter_at(partition: PartitionKeys, text: bytes) -> StoredDeadLetter:
    """Parse a letter; its destination has the name of today, whatever it was when it died.

    Its profile, which stands last, is left out if it is no JSON.
    """
    text = unseal_dead_letter(text)
    try:
        stored = orjson.loads(text)
    except orjson.JSONDecodeError:
        stored = orjson.loads(text.partition(PROFILE)[0] + b"}") | {"profile": None}
    return {"id": stored["id"], "destination": partition.destination, **stored}


def read_causes(client: Redis, partitions: Sequence[PartitionKeys]) -> list[Cause]:
    """Return the causes of all letters, the most frequent first, each with a sample that is there.

    Samples that have been removed are replaced by other letters with the same cause.
    """
    causes = {one.cause: one for one in count_causes(client, partitions)}
    named = Filter(ids=frozenset(one.sample for one in causes.values()))
    there = {one["id"] for one in find_dead_letters(client, partitions, named)} if causes else set()
    gone = {one.cause for one in causes.values() if one.sample not in there}
    while gone:
        other = next(find_dead_letters(client, partitions, Filter(causes=frozenset(gone))), None)
        if other is None:
            break
        causes[other["cause"]] = replace(causes[other["cause"]], sample=other["id"])
        gone.remove(other["cause"])
    return list(causes.values())


def count_causes(client: Redis, partitions: Sequence[PartitionKeys]) -> list[Cause]:
    """Return the causes without looking at letters, so that a sample letter may be gone."""
    counts: Counter[str] = Counter()
    samples: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for answer in ask_each(client, partitions, lambda pipe, one: pipe.hgetall(one.causes)):
        for name, text in answer.items():
            cause, _, kind = name.decode().partition("|")
            if kind == "n":
                counts[cause] += int(text)
            elif cause not in samples:
                samples[cause] = orjson.loads(text)
    return [
        Cause(
            cause,
            count,
            str(samples[cause].get("reason", "")),
            int(samples[cause].get("status", 0)),
            normalise_message(str(samples[cause].get("message", ""))),
            str(samples[cause].get("trigger", "")),
            str(samples[cause].get("letter", "")),
        )
        for cause, count in counts.most_common()
        if count > 0
    ]


def dead_letters_kept(client: Redis, partitions: Iterable[PartitionKeys]) -> list[int]:
    """Return the number of letters in each of these partitions, in one round trip."""
    return ask_each(client, partitions, lambda pipe, partition: pipe.hlen(partition.dead_letters))
