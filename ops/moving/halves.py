"""Ending a broken move from one destination to another, before all of it is renumbered.

Moving copies each part, marks it, and removes it; the marks name parts by the number of their
partition. Where a `destination rename` or a `trigger move` died in between, a part is there twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from ops.letters.reading import letter_id_in
from ops.moving.carrying import COUNTS, LETTER, STEP, Carrier, in_parts
from ops.moving.contents import Contents, is_of_person
from ops.moving.rows import remove_rows
from worker.contract.redis.connection import redis_errors

_MARKS: Final = "carried:"


def end_halves(everything: Iterable[Contents]) -> None:
    """Remove what has arrived at another destination from where it came.

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
    """Remove from the source what is marked as arrived."""
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
