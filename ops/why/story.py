"""All that is known of one profile: its ledger, what waits, dead letters, and its history."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson
from redis import Redis

from ops.letters.reading import Filter, StoredLetter, find_letters
from ops.state.identity_changes import PastRenaming, read_renamings
from ops.state.ledger import LedgerLine, Names, read_records
from ops.state.partitions import all_partitions
from ops.state.person import (
    ForwardedPerson,
    KnownPerson,
    former_identities,
    person_named,
    present_key,
    read_forwards,
)
from ops.state.waiting import WaitingEntry, find_streams, is_orphan, is_unwanted, read_entries
from ops.why.obstacles import Obstacles
from producer.publishing.quarantine import Quarantine, QuarantineRecord
from worker.adapters.redis.meanings import read_meanings
from worker.contract.events import decode_profile
from worker.contract.keys import DIGEST_BYTES, PartitionKeys, digest_of
from worker.contract.people.forwards import Moving
from worker.contract.processes.webhook_requests import WebhookRequest, read_requests
from worker.contract.redis.claim import learn_numbering
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.core.ledger import FAR_MS
from worker.errors import PayloadRefused, UsageWrong

MOST_ENTRIES: Final = 100_000
"""The largest number of waiting entries that are read: more would take minutes."""
MOST_RECORDS: Final = 1_000
"""The number of quarantine records that are read, from the newest on."""

_DIGEST: Final = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_MOST_LETTERS: Final = 100
_MOST_FOUND: Final = 1_000


class Moment(NamedTuple):
    """One line of a person's timeline.

    Attributes:
        at_ms: The time of the line, by Redis' clock.
        event_us: The time of the event that it is about; 0 = it is about none.
    """

    at_ms: int
    what: str
    destination: str = ""
    trigger: str = ""
    audience: str = ""
    direction: str = ""
    event_us: int = 0
    detail: str = ""


@dataclass(slots=True)
class KnownProfile:
    """All that is known of a profile.

    Args:
        written_ms: The last write of each record that lapses, by destination.
        orphaned: Entries of `waiting` that no trigger wants any more.
        requests: To the receiver, that brought events of this person lately.
        renamings: By which the person got the present identity.
        is_whole: All that waits was looked at.
    """

    person: KnownPerson
    ledger: dict[str, list[LedgerLine]] = field(default_factory=dict)
    waiting: list[WaitingEntry] = field(default_factory=list)
    orphaned: list[WaitingEntry] = field(default_factory=list)
    letters: list[StoredLetter] = field(default_factory=list)
    past: list[Moment] = field(default_factory=list)
    written_ms: dict[str, int] = field(default_factory=dict)
    quarantined: list[QuarantineRecord] = field(default_factory=list)
    obstacles: Obstacles | None = None
    requests: list[WebhookRequest] = field(default_factory=list)
    renamings: list[PastRenaming] = field(default_factory=list)
    is_whole: bool = True

    @property
    def is_nothing(self) -> bool:
        """Say whether nothing is known of the profile."""
        delivered = any(self.ledger.values())
        stored = self.waiting or self.letters or self.past or self.quarantined
        return not (delivered or stored or self.requests or self.renamings)


def explain(client: Redis, settings: Settings, text: str) -> KnownProfile:
    """Find a profile by what was typed, and return all that is known of it.

    The text is a value of the identity field; else a digest as `verify` prints it; else a value of
    any field of what waits or lies dead: `value` or `field:value`.
    """
    try:
        named = person_named(text, settings, learn_numbering(client, settings))
        known = _known(client, settings, named)
    except UsageWrong:
        known = None
    if known is None or known.is_nothing:
        other = _with_digest(client, settings, text) or _with_field(client, settings, text)
        if other is not None:
            known = _known(client, settings, other)
    if known is None:
        raise UsageWrong(
            f"This can't be anybody's {settings.delivery.identity}, and nobody has it in a field."
        )
    known.quarantined = list(_quarantined(client, text))
    digest = known.person.digest
    known.renamings = list(read_renamings(client, all_partitions(client, settings), digest))
    known.requests = [one for one in read_requests(client) if digest in one.people]
    return known


def _known(client: Redis, settings: Settings, person: KnownPerson) -> KnownProfile:
    known = KnownProfile(person)
    names = Names(client)
    everywhere = all_partitions(client, settings)
    forwards = list(read_forwards(client, everywhere))
    done = [each for each in forwards if each.forward.moving is Moving.DONE]
    if key := present_key(done, person.digest):
        numbering = learn_numbering(client, settings)
        known.person = person = KnownPerson(digest_of(key), numbering.of(key))
    people = [person, *former_identities(done, person.digest)]
    partitions = {each.partition for each in people}
    places = [place for place in everywhere if place.partition in partitions]
    for place in (one for one in places if one.partition == person.partition):
        (record,) = read_records(client, place, [person.digest])
        known.ledger[place.destination] = list(names.lines(record))
        written_ms = _written_ms(client, settings, place, person)
        if written_ms:
            known.written_ms[place.destination] = written_ms
    digests = frozenset(each.digest for each in people)
    for place in places:
        known.past += _past(client, place, digests)
    known.waiting, known.is_whole = _waiting(client, places, digests)
    if known.waiting:
        moving = frozenset(_moving(forwards))
        known.obstacles = Obstacles.read(
            client, settings, places, person=person.digest, renaming=moving
        )
    known.orphaned = list(_orphaned(client, settings, known.waiting))
    wanted = Filter(digests=frozenset(digest.hex() for digest in digests))
    known.letters = list(islice(find_letters(client, places, wanted), _MOST_LETTERS))
    return known


def _moving(forwards: Iterable[ForwardedPerson]) -> Iterator[tuple[str, bytes]]:
    return (
        (each.destination, each.person.digest)
        for each in forwards
        if each.forward.moving is not Moving.DONE
    )


def _written_ms(
    client: Redis, settings: Settings, place: PartitionKeys, person: KnownPerson
) -> int:
    """Return when a record was last written, from its expiry; each write sets that anew.

    0 = nobody can tell: there is none, or its person is in an audience and it never lapses.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.pttl(place.ledger(person.digest))
        (seconds, micros), left_ms = pipe.execute()
    if left_ms < 0:
        return 0
    since_ms = seconds * 1000 + micros // 1000
    kept_ms = FAR_MS + round(1000 * settings.delivery.ledger_retention_seconds)
    return int(since_ms - kept_ms + left_ms)


def _past(client: Redis, place: PartitionKeys, digests: frozenset[bytes]) -> Iterator[Moment]:
    """Yield the lines of a partition's history about a person: skips, refusals and retries."""
    with redis_errors():
        rows: Any = client.xrevrange(place.history)
    wanted = {digest.hex() for digest in digests}
    for _, fields in rows:
        at_ms, digest, audience, trigger, direction, time_us, outcome, remark = orjson.loads(
            fields[b"e"]
        )
        if digest in wanted:
            where = (place.destination, trigger, audience, direction)
            yield Moment(at_ms, outcome, *where, time_us, remark)


def _all_waiting(client: Redis, places: Sequence[PartitionKeys]) -> Iterator[WaitingEntry]:
    for stream in find_streams(client, places):
        yield from read_entries(client, stream)


def _waiting(
    client: Redis, places: Sequence[PartitionKeys], digests: frozenset[bytes]
) -> tuple[list[WaitingEntry], bool]:
    """Return the deliveries that wait under these digests, and whether all entries were read."""
    found: list[WaitingEntry] = []
    for number, entry in enumerate(_all_waiting(client, places)):
        if number == MOST_ENTRIES or len(found) == _MOST_FOUND:
            return found, False
        if entry.header and entry.header.digest in digests:
            found.append(entry)
    return found, True


def _orphaned(
    client: Redis, settings: Settings, waiting: Sequence[WaitingEntry]
) -> Iterator[WaitingEntry]:
    meanings = read_meanings(client, settings) if waiting else {}
    for entry in waiting:
        place, trigger = entry.stream.place, entry.stream.trigger
        if is_orphan(settings, place, trigger) or is_unwanted(entry, meanings[trigger]):
            yield entry


def _with_digest(client: Redis, settings: Settings, text: str) -> KnownPerson | None:
    """Find a profile by the digest that other commands print."""
    if not _DIGEST.fullmatch(text.strip().lower()):
        return None
    digest = bytes.fromhex(text.strip())
    for place in all_partitions(client, settings):
        (record,) = read_records(client, place, [digest])
        if record.items:
            return KnownPerson(digest, place.partition)
    wanted = Filter(digests=frozenset([digest.hex()]))
    letters = find_letters(client, all_partitions(client, settings), wanted)
    letter = next(letters, None)
    return KnownPerson(digest, letter["partition"]) if letter else None


def _with_field(client: Redis, settings: Settings, text: str) -> KnownPerson | None:
    """Find a profile by any field, in waiting deliveries and dead letters."""
    places = all_partitions(client, settings)
    for entry in islice(_all_waiting(client, places), MOST_ENTRIES):
        if entry.header and _has(_profile_of(entry), text):
            return KnownPerson(entry.header.digest, entry.stream.place.partition)
    for letter in islice(find_letters(client, places), MOST_ENTRIES):
        if letter["header"] and _has(letter["profile"], text):
            return KnownPerson(bytes.fromhex(letter["header"][1]), letter["partition"])
    return None


def _profile_of(entry: WaitingEntry) -> Any:
    try:
        return orjson.loads(decode_profile(entry.profile))
    except (PayloadRefused, orjson.JSONDecodeError):
        return None


def _has(profile: Any, text: str) -> bool:
    if not isinstance(profile, dict):
        return False
    wanted = text.strip().casefold()
    for name, value in profile.items():
        if isinstance(value, str | int) and not isinstance(value, bool):
            found = str(value).strip().casefold()
            if wanted in (found, f"{name.casefold()}:{found}"):
                return True
    return False


def _quarantined(client: Redis, text: str) -> Iterator[QuarantineRecord]:
    """Yield records of the quarantine that hold the text."""
    quarantine = Quarantine(client)
    wanted = text.strip().casefold().encode()
    newest = sorted(quarantine.records(), key=lambda record: -record.last_seen_ms)
    for record in newest[:MOST_RECORDS]:
        content = quarantine.text(record.id)
        if content and wanted in content.lower():
            yield record
