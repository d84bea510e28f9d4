"""Reading dead letters: over all partitions, newest first, filtered; and their causes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson

from segrelay.ops.state import opened
from segrelay.ops.state.partitions import ask_each
from segrelay.ops.state.waiting import EVERYTHING, Filter
from segrelay.worker.batch.delivery import unseal_dead_letter
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.core.messages import normalise_message

_READ_AT_ONCE: Final = 100
"""Dead letters read in one call: few, because one may hold a profile of a megabyte."""
_LATEST_MS: Final = 1 << 52
_READ_FIRST: Final = 8
"""Deaths of a partition that are read first: for the newest few of all, few of each are enough."""

PROFILE: Final = b',"profile":'

StoredDeadLetter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of death, with the number of dead letters and one of them as a sample."""

    cause: str
    count: int
    reason: str
    status: int
    message: str
    trigger: str
    sample: str


def digest_of(dead_letter: StoredDeadLetter) -> str:
    """Return the digest of a dead letter's profile, hex; "" = its entry can't be read."""
    header = dead_letter["header"]
    return str(header[1]) if header else ""


def place_of(dead_letter_id: str) -> tuple[str, int] | None:
    """Return the destination and the partition with which a dead letter's id begins.

    None = the text is no id of a dead letter.
    """
    destination, _, rest = dead_letter_id.partition(".")
    number, _, short = rest.partition(".")
    if not (destination and short and number.isascii() and number.isdigit()):
        return None
    return destination, int(number)


def find_dead_letters(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter = EVERYTHING
) -> Iterator[StoredDeadLetter]:
    """Yield dead letters, the newest first; those that are added meanwhile may be missing."""
    if wanted.ids:
        yield from _named(client, partitions, wanted)
        return
    for death, text in walk_deaths(client, partitions, wanted):
        if text is not None:
            dead_letter = dead_letter_at(death.partition, text)
            if matches(dead_letter, wanted):
                yield dead_letter


class TimeOfDeath(NamedTuple):
    """The place of a dead letter in the order of deaths, which is read without the rest of it.

    Of several deaths in one millisecond, the one with the greater id comes first.
    """

    at_ms: int
    id: bytes
    partition: PartitionKeys

    @property
    def cursor(self) -> str:
        """Return the text with which a walk goes on behind this dead letter."""
        return f"{self.at_ms}.{self.id.decode()}"


def walk_deaths(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter, behind: str = ""
) -> Iterator[tuple[TimeOfDeath, bytes | None]]:
    """Yield the deaths that may match, the newest first, each with its dead letter's text.

    None = the dead letter is gone, or it can't match and is the last one that Redis has looked at.

    Args:
        client: Redis, which looks through the dead letters.
        partitions: The partitions to look in.
        wanted: The filter that dead letters may match; `matches` says whether one does.
        behind: The cursor of the last death that is known already; "" = none is.
    """
    partitions = [one for one in partitions if wanted.destination in ("", one.destination)]
    choices = list(_texts_of_filter(client, partitions, wanted))
    if not all(choices):
        return  # no cause has the text
    lists = orjson.dumps(choices)
    last, most = behind or f"{wanted.until_ms + 1 if wanted.until_ms else _LATEST_MS}.", _READ_FIRST
    while last:
        calls = [
            ScriptCall((one.dead_letters, one.dead_letter_times), (*_place(one, last), most, lists))
            for one in partitions
        ]
        deaths, horizon = _deaths(partitions, opened.run(client, "letters", calls))
        deaths = [one for one in deaths if one.at_ms >= wanted.since_ms]
        for first in range(0, len(deaths), _READ_AT_ONCE):
            part = deaths[first : first + _READ_AT_ONCE]
            yield from zip(part, _texts(client, part), strict=True)
        if horizon is None or horizon.at_ms < wanted.since_ms:
            return
        if horizon not in deaths[-1:]:
            yield horizon, None
        last, most = horizon.cursor, min(_READ_AT_ONCE, 2 * most)


def _texts_of_filter(
    client: Redis, partitions: Sequence[PartitionKeys], wanted: Filter
) -> Iterator[list[str]]:
    """Yield for each choice of a filter the texts of which a matching dead letter holds one.

    Of a sealed dead letter only the person can be looked for.
    """
    if wanted.digests:
        yield list(wanted.digests)
    if PROTECTION:
        return
    if wanted.containing:
        text = wanted.containing.casefold()
        known = count_causes(client, partitions)
        yield [f'"cause":"{one.cause}"' for one in known if text in one.message.casefold()]
    if wanted.job:
        yield [f'"stream":"{lane_of_job(wanted.job)}|']
    singles = {name: [getattr(wanted, name)] for name in ("trigger", "audience", "reason")}
    for name, values in {"cause": wanted.causes, **singles}.items():
        if any(values):
            yield [f'"{name}":{orjson.dumps(value).decode()}' for value in values]


def _place(partition: PartitionKeys, behind: str) -> tuple[int, str]:
    """Return the time and the id behind which a cursor is in a partition.

    All ids of a partition begin alike, so that those of another partition stand all before them or
    all behind them.
    """
    at_ms, _, name = behind.partition(".")
    own = f"{partition.destination}.{partition.number}."
    return (int(at_ms), name) if name.startswith(own) else (int(at_ms) + (own < name), "")


def _deaths(
    partitions: Sequence[PartitionKeys], answers: Iterable[Sequence[bytes]]
) -> tuple[list[TimeOfDeath], TimeOfDeath | None]:
    """Return the deaths that were found, the newest first, up to the last that is sure, and that.

    Up to that one each partition has been looked through; None = all to their ends.
    """
    found: list[TimeOfDeath] = []
    horizon: TimeOfDeath | None = None
    for partition, rows in zip(partitions, answers, strict=True):
        last, *deaths = [
            TimeOfDeath(int(at_ms or 0), name, partition)
            for at_ms, name in zip(rows[::2], rows[1::2], strict=True)
        ]
        found += deaths
        if last.id:
            horizon = max(horizon or last, last)
    found.sort(reverse=True)
    return [one for one in found if horizon is None or one >= horizon], horizon


def _texts(client: Redis, deaths: Sequence[TimeOfDeath]) -> Iterator[bytes | None]:
    groups: defaultdict[PartitionKeys, list[bytes]] = defaultdict(list)
    for one in deaths:
        groups[one.partition].append(one.id)
    answers = ask_each(client, groups, lambda pipe, one: pipe.hmget(one.dead_letters, groups[one]))
    texts = {partition: iter(answer) for partition, answer in zip(groups, answers, strict=True)}
    return (next(texts[one.partition]) for one in deaths)


def matches(dead_letter: StoredDeadLetter, wanted: Filter) -> bool:
    """Say whether a filter matches a dead letter; its time was compared before."""
    return (
        (not wanted.causes or dead_letter["cause"] in wanted.causes)
        and wanted.destination in ("", dead_letter["destination"])
        and wanted.trigger in ("", dead_letter["trigger"])
        and (not wanted.job or dead_letter["stream"].startswith(f"{lane_of_job(wanted.job)}|"))
        and wanted.audience in ("", dead_letter["audience"])
        and wanted.reason in ("", dead_letter["reason"])
        and (not wanted.digests or digest_of(dead_letter) in wanted.digests)
        # A text is looked for in what a letter shows without being revealed.
        and wanted.containing.casefold() in normalise_message(dead_letter["message"]).casefold()
    )


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
            found = (dead_letter_at(partition, text) for text in texts if text is not None)
            yield from (dead_letter for dead_letter in found if matches(dead_letter, wanted))


def dead_letter_at(partition: PartitionKeys, text: bytes) -> StoredDeadLetter:
    """Parse a dead letter, and add the destination, which its partition tells.

    Its profile, which stands last, is left out if it is no JSON.
    """
    text = unseal_dead_letter(text)
    try:
        stored = orjson.loads(text)
    except orjson.JSONDecodeError:
        stored = orjson.loads(text.partition(PROFILE)[0] + b"}") | {"profile": None}
    return {"id": stored["id"], "destination": partition.destination, **stored}


def read_causes(client: Redis, partitions: Sequence[PartitionKeys]) -> list[Cause]:
    """Return all causes of death, the most frequent first, each with a sample that is there.

    Samples that have been removed are replaced by other dead letters with the same cause.
    """
    causes = count_causes(client, partitions)
    named = Filter(ids=frozenset(one.sample for one in causes))
    there = {one["id"] for one in find_dead_letters(client, partitions, named)} if causes else set()
    gone = {one.cause for one in causes if one.sample not in there}
    samples: dict[str, str] = {}
    alike = find_dead_letters(client, partitions, Filter(causes=frozenset(gone)))
    while len(samples) < len(gone) and (found := next(alike, None)):
        samples.setdefault(found["cause"], found["id"])
    return [replace(one, sample=samples.get(one.cause, one.sample)) for one in causes]


def count_causes(client: Redis, partitions: Sequence[PartitionKeys]) -> list[Cause]:
    """Return the causes from their counts alone, so that a sample may be gone."""
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
