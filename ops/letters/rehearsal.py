"""Rehearsals of a replay: what today's configuration would make of dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import orjson
from redis import Redis

from ops.letters.reading import Filter, StoredLetter, find_letters
from worker.checks.rehearsal import Candidate, Rehearsed, rehearse
from worker.contract.events import decode_header
from worker.contract.keys import PartitionKeys
from worker.contract.settings import Settings
from worker.contract.words import Death
from worker.destinations.api import NotSendable

_READ_AT_ONCE: Final = 100
"""Letters read in one call; one may hold a profile of a megabyte."""
_UNREADABLE: Final = NotSendable(
    Death.UNREADABLE, "The entry can't be read by this version of segrelay."
)


def candidate_of(letter: StoredLetter) -> Candidate | None:
    """Return the event of a letter; None if this version can't read its entry."""
    if "entry" in letter or not letter["header"]:
        return None
    header = decode_header(orjson.dumps(letter["header"]))
    return Candidate(letter["id"], letter["trigger"], header, orjson.dumps(letter["profile"]))


def rehearse_letters(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    now_ms: int,
) -> Iterator[Rehearsed]:
    """Rehearse letters that could be replayed."""
    for first in range(0, len(ids), _READ_AT_ONCE):
        part = Filter(frozenset(ids[first : first + _READ_AT_ONCE]))
        letters = {one["id"]: candidate_of(one) for one in find_letters(client, places, part)}
        readable = [candidate for candidate in letters.values() if candidate]
        yield from rehearse(readable, settings, now_us=1000 * now_ms)
        for letter_id, candidate in letters.items():
            if candidate is None:
                yield Rehearsed(letter_id, None, _UNREADABLE)
