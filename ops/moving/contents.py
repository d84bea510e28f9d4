"""Carrying all that a destination holds to its new name, in steps that can be repeated.

The ledgers come first, and what is known of people before what waits: they decide about every
later delivery.

Moving copies each part, marks it, and removes it; the marks name parts by the number of their
partition. Where `rename destination` or `rename trigger` died in between, a part is there twice.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.ops.dead_letters.reading import dead_letter_id_in
from segrelay.ops.moving.carrying import (
    COUNTS,
    DEAD_LETTER,
    STEP,
    Carrier,
    carry_log,
    carry_stream,
    digest_in,
    in_parts,
    remove_rows,
)
from segrelay.ops.moving.stable_ids import (
    LISTS,
    RECORDS,
    carry_changes,
    carry_counts,
    carry_lists,
    carry_records,
)
from segrelay.ops.state.partitions import Carried
from segrelay.worker.contract.keys import DIGEST_BYTES
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_keys

_TOLD_SECONDS: Final = 2.0
_LEDGERS: Final = "l*"
_NAMED: Final = ("sync:*", "jobs:*", "carried:*")
_HASHES: Final = ("open", "intents", "who", "forwards", "retry", "synctokens", "lettersleaving")
"""The parts that are hashes; an intent in doubt is open before it is there."""
TRACES: Final = ("wakeup", "rendering", "holds", "orphans", "streams", "causes", "leaving")
"""Parts of a partition that mean nothing once no delivery waits there, so that they are deleted."""
_OF_PERSON: Final = re.compile(rf"carried:[0-9a-f]{{{2 * DIGEST_BYTES}}}")


@dataclass(slots=True)
class Contents:
    """The mover of all data in the partitions of one destination, whose leases are held.

    Args:
        carriers: By the number of the partition that each empties.
        staying: Stable ids that stay: a change of them waits where they belong.
    """

    client: Redis
    destination: str
    carriers: Mapping[int, Carrier]
    renew: Callable[[], None]
    tell: Callable[[Carried], None]
    carried: Carried
    staying: int = field(default=0, init=False)
    _told_at: float = field(default_factory=time.monotonic)

    def move(self) -> None:
        """Move everything that an earlier attempt has not moved already."""
        self._carry_ledgers()
        self._carry_named_parts()
        for carrier in self.carriers.values():
            self._carry_parts(carrier)
        self._carry_stable_ids()
        self._carry_streams()
        for carrier in self.carriers.values():
            self.step()
            carrier.counts()
            self.client.unlink(*(getattr(carrier.old.place, part) for part in TRACES))

    def forget_marks(self) -> None:
        """Delete the records of arrived parts, once no part can arrive again."""
        for carrier in self.carriers.values():
            self.client.unlink(carrier.carried)

    def step(self) -> None:
        """Renew the leases, and report the counts from time to time."""
        if time.monotonic() > self._told_at + _TOLD_SECONDS:
            self._told_at = time.monotonic()
            self.tell(self.carried)
        self.renew()

    def found(self, pattern: str) -> Iterator[tuple[Carrier, list[bytes]]]:
        """Yield the keys that match a pattern, grouped by the carrier of their partition."""
        places = [carrier.old.place for carrier in self.carriers.values()]
        for names in scan_keys(self.client, places, pattern):
            groups: defaultdict[int, list[bytes]] = defaultdict(list)
            for name in names:
                number = number_in(name, self.destination)
                if number in self.carriers:
                    groups[number].append(name)
            for number, some in groups.items():
                yield self.carriers[number], some

    def _carry_ledgers(self) -> None:
        for carrier, names in self.found(_LEDGERS):
            place = carrier.old.place
            digests = [digest for name in names if (digest := digest_in(name, place))]
            for part in in_parts(digests, STEP):
                self.step()
                carrier.merge_ledgers(part)
                self.client.unlink(*map(place.ledger, part))
                self.carried.profiles += len(part)

    def _carry_named_parts(self) -> None:
        """Move the members of syncs, the positions of jobs, and the marks of arrived letters."""
        for pattern in _NAMED:
            for carrier, names in self.found(pattern):
                for name in names:
                    self.step()
                    suffix = name.decode().removeprefix(carrier.old.place.tag)
                    if pattern == "jobs:*":
                        carrier.positions(suffix)
                    elif pattern == "sync:*":
                        carrier.hash(suffix)
                    elif is_of_person(suffix):
                        carrier.arrival_marks(suffix)

    def _carry_parts(self, carrier: Carrier) -> None:
        self.step()
        for part in _HASHES:
            carrier.hash(part)
        carrier.members("reached")
        carrier.positions("jobs")
        self.step()
        self.carried.dead_letters += carrier.dead_letters()

    def _carry_stable_ids(self) -> None:
        for carrier, names in self.found(LISTS):
            self.step()
            carry_lists(carrier, names)
        self.staying = 0
        for carrier, names in self.found(RECORDS):
            self.step()
            self.staying += carry_records(carrier, names)
        for carrier in self.carriers.values():
            self.step()
            carry_changes(carrier)
            carry_counts(carrier)

    def _carry_streams(self) -> None:
        for carrier in self.carriers.values():
            for part in ("history", "responses"):
                for _ in carry_log(carrier, part):
                    self.step()
            names: Any = self.client.smembers(carrier.old.place.streams)
            for name in sorted(names):
                for moved in carry_stream(carrier, name.decode()):
                    self.step()
                    self.carried.deliveries += moved


def is_of_person(suffix: str) -> bool:
    """Say whether a record of arrivals is about a person's letters, not about a destination."""
    return _OF_PERSON.fullmatch(suffix) is not None


def number_in(key: bytes, destination: str) -> int:
    """Return the number of the partition to which a key of a destination belongs; -1 = none."""
    number = key[len(destination) + 2 :].partition(b"}")[0]
    return int(number) if number.isdigit() else -1


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
                    marks: Any = contents.client.hgetall(name)
                    _end(source, marks)
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
    _end_dead_letters(source, entries.pop(DEAD_LETTER, []))
    for part, ids in entries.items():
        for some in in_parts(ids, STEP):
            remove_rows(source, part, some)


def _end_dead_letters(source: Carrier, ids: Iterable[str]) -> None:
    place = source.old.place
    own = [dead_letter_id_in(place, one) for one in ids]
    if own:
        found: Any = source.client.hmget(place.dead_letters, own)
        source.dead_letters_left([orjson.loads(text) for text in found if text])
