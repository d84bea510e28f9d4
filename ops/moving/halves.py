"""Completing interrupted moves between destinations, and finding partitions that hold anything.

Moving copies each part, marks it, and removes it; the marks name parts by the number of their
partition. Where a `destination rename` or a `trigger move` died in between, a part is there twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import orjson
from redis import Redis

from ops.letters.reading import letter_id_in
from ops.moving.carrying import COUNTS, LETTER, STEP, Carrier, in_parts
from ops.moving.contents import TRACES, Contents, is_of_person, number_in
from ops.moving.rows import LOGS, remove_rows
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_keys

_MARKS: Final = "carried:"


def end_halves(everything: Iterable[Contents]) -> None:
    """Complete interrupted moves: remove what has arrived at another destination from its source.

    The leases of all their partitions are held, so that the broken command does nothing more even
    if its process only stood still.
    """
    sources = {contents.destination: contents for contents in everything}
    for contents in sources.values():
        for carrier, names in contents.found(f"{_MARKS}*"):
            for name in names:
                contents.step()
                suffix = name.decode().removeprefix(carrier.old.place.tag)
                former = sources.get(suffix.removeprefix(_MARKS))
                if former not in (None, contents) and not is_of_person(suffix):
                    source = former.carriers[carrier.old.place.partition]
                    with redis_errors():
                        marks: Any = contents.client.hgetall(name)
                    _end(source, marks)
                    with redis_errors():
                        contents.client.unlink(name)


def _end(source: Carrier, marks: Mapping[bytes, bytes]) -> None:
    """Remove from a source the parts that are marked as arrived."""
    entries: defaultdict[str, list[str]] = defaultdict(list)
    for mark, value in marks.items():
        part, _, one = mark.decode().rpartition("|")
        if mark == COUNTS.encode():
            source.counts_left(value)
        else:
            entries[part].append(one)
    _end_letters(source, entries.pop(LETTER, []))
    for part, ids in entries.items():
        for some in in_parts(ids, STEP):
            remove_rows(source, part, some)


def _end_letters(source: Carrier, ids: Iterable[str]) -> None:
    place = source.old.place
    own = [letter_id_in(place, one) for one in ids]
    if own:
        with redis_errors():
            found: Any = source.client.hmget(place.letters, own)
        source.letters_left([orjson.loads(text) for text in found if text])


_LEFT_ALONE: Final = frozenset({"lease", *TRACES})
_COUNTS: Final = frozenset({"counts", "jobtimes"})
_STREAM: Final = "s:"


def leftovers(
    client: Redis, destination: str, numbers: Collection[int], renew: Callable[[], None]
) -> set[int]:
    """Return those of these partitions that hold anything; delete empty keys.

    Empty streams are kept elsewhere, because a late settlement could hit a new entry of the same
    id. Nothing is added to partitions with former numbers.
    """
    found: set[int] = set()
    places = [PartitionKeys(destination, number) for number in numbers]
    for names in scan_keys(client, places, "*"):
        renew()
        for name in names:
            number = number_in(name, destination)
            part = name.partition(b"}")[2].decode(errors="replace")
            if number not in numbers or part in _LEFT_ALONE:
                continue
            if _is_empty(client, name, part):
                with redis_errors():
                    client.unlink(name)
            else:
                found.add(number)
    return found


def _is_empty(client: Redis, name: bytes, part: str) -> bool:
    with redis_errors():
        if part in LOGS or part.startswith(_STREAM):
            return not client.xlen(name)
        if part in _COUNTS:
            counts: Any = client.hvals(name)
            return not any(map(int, counts))
        if part == "responseslost":
            lost: Any = client.get(name)
            return not int(lost or 0)
    return False
