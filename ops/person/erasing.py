"""Erasing a person from Redis: streams, ledger, letters, quarantine, syncs, and former identities.

Traces that stay are named: texts that mention the person, bytes of deleted entries, and files that
were exported. What was found is counted, and nothing of it is kept. A command that was killed is
given again: the records of former identities go last, the earliest first, since they say under
which digests there may be more. Identities are erased in the same order: until that, a worker may
hand on what waits under one of them to the next.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.ops.dead_letters.reading import (
    StoredDeadLetter,
    dead_letter_at,
    find_dead_letters,
    matches,
)
from segrelay.ops.dead_letters.reading import digest_of as digest_of_dead_letter
from segrelay.ops.dead_letters.replay import discard, discard_leaving
from segrelay.ops.kept import Filter
from segrelay.ops.moving.leases import HeldLease, held
from segrelay.ops.outcomes.reading import Range, entries
from segrelay.ops.state import opened
from segrelay.ops.state.acts import EXPORTED_FILE
from segrelay.ops.state.identity_changes import IdentityChanges
from segrelay.ops.state.partitions import Stream, all_partitions, ask_each, destinations_of
from segrelay.ops.state.person import (
    KnownPerson,
    end_renaming,
    former_identities,
    present_key,
    read_forwards,
)
from segrelay.ops.state.waiting import find_streams, read_entries, take_back_entries
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.outcomes import log_bytes, without_people
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.contract.protection import BAD_ROWS, PROTECTION, RESPONSES
from segrelay.worker.contract.receivers import forget_requests
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import (
    LeaseLost,
    NotPermitted,
    OperationsMustAct,
    PayloadRefused,
)

_WORD: Final = re.compile(r"[^\s\"',;:<>|{}\[\]()\\\\=&]+")
_EMAIL: Final = "email"


@dataclass(frozen=True, slots=True)
class Mention:
    """The names by which a person is mentioned in Redis and files.

    Of a former identity only its digest is known, so words of a text are digested to find it.

    Args:
        digests: Under which the person is or was known.
        identity: The configured identity field.
        values: Of the identity, as far as they are known.
    """

    digests: frozenset[bytes]
    identity: str
    values: Sequence[str]

    def stands_in(self, text: bytes) -> bool:
        """Say whether a text has a value of the identity, or a digest, in hexadecimal notation."""
        plain = _plain(text)
        lower = plain.lower()
        hexadecimal = frozenset(digest.hex() for digest in self.digests)
        return any(value.lower() in lower for value in self.values) or any(
            word in hexadecimal or digest_of(f"{self.identity}:{word}") in self.digests
            for word in set(_WORD.findall(lower if self.identity == _EMAIL else plain))
        )


def value_of(profile_key: str) -> str:
    """Return the value of the identity in the key of a profile."""
    return profile_key.partition(":")[2]


def _plain(text: bytes) -> str:
    """Return a text with the escapes of JSON resolved, if it is JSON."""
    try:
        return orjson.dumps(orjson.loads(text)).decode()
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")


_LONGEST: Final = 5_000
"""The longest stream, in entries, that is rewritten in one step; Redis takes 0.1 s for it."""


_LONGEST_OUTCOMES: Final = 50_000
"""The same for the stream of a partition's outcomes, whose entries are small."""


def compact_streams(client: Redis, partitions: Iterable[PartitionKeys]) -> int:
    """Rewrite streams that may hold bytes of deleted entries; return how many are too long.

    Raises:
        RedisUnavailable: Redis can't be asked; do it again.
    """
    partitions = list(partitions)
    waiting = [one.partition.stream(one.name) for one in find_streams(client, partitions)]
    logs = [name for partition in partitions for name in (partition.history, partition.responses)]
    too_long = 0
    for name in (*waiting, *logs, keys.REQUESTS):
        (answer,) = opened.run(client, "stream_compact", [ScriptCall((name,), (_LONGEST,))])
        too_long += answer < 0
    return too_long


def files_that_mention(client: Redis, mention: Mention) -> list[str]:
    """Return the files on this machine that were exported, and mention a person."""
    found = {act.arguments.get(EXPORTED_FILE, "") for act in read_acts(client)} - {""}
    return sorted(name for name in found if _mentions(Path(name), mention))


def _mentions(path: Path, mention: Mention) -> bool:
    try:
        with path.open("rb") as file:
            return any(map(mention.stands_in, file))
    except OSError:
        return False


_OWNER: Final = "segrelay erase"
_ANSWER_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.2


@dataclass(slots=True)
class Erasing:
    """The erasing of one person from Redis, and then at Insider.

    Args:
        anonymize: Takes the keys under which others may know the person, the present one first.
            It is called once nothing waits any more that would tell them of the person anew.
        too_long: Streams that may still hold bytes of deleted entries, see `traces`.
        damaged: The records that can't be read, so whether they are about the person is not known.
    """

    client: Redis
    settings: Settings
    key: str
    anonymize: Callable[[Sequence[str]], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    counts: Counter[str] = field(default_factory=Counter)
    too_long: int = field(default=0, init=False)
    damaged: Counter[str] = field(default_factory=Counter, init=False)
    _keys: Sequence[str] = field(default=(), init=False)
    _mention: Mention = field(init=False)
    _coming: Sequence[bytes] = field(default=(), init=False)

    def run(self) -> list[str]:
        """Erase the person, and return the digests (hex) under which they were known.

        Raises:
            OperationsMustAct: A request about the person is unanswered, or they are being renamed
                by a worker; do it again.
            RedisUnavailable: Do it again.
        """
        partitions = all_partitions(self.client, self.settings)
        people = self._people(partitions)
        for changes in self._identity_changes(partitions):
            for person in people:
                changes.refuse_changing(person.digest, person.partition)
        self._stop_arrivals(partitions, people)
        for person in people:
            for partition in partitions:
                if partition.number == person.partition:
                    self._await_answers(partition, person.digest)
                    with self._leased(partition) as lease:
                        self._erase_in(partition, lease, person.digest)
        digests = [person.digest for person in people]
        wanted = Filter(digests=frozenset(digest.hex() for digest in digests))
        dead_letters = [
            dead_letter["id"] for dead_letter in find_dead_letters(self.client, partitions, wanted)
        ]
        self.counts["letters"] += sum(discard(self.client, self.settings, partitions, dead_letters))
        self._erase_dead_letters_on_their_way(partitions, wanted)
        self._erase_elsewhere(digests)
        longest = self._erase_outcomes(digests)
        self._erase_stable_ids(partitions, people)
        self.too_long = compact_streams(self.client, partitions) + longest
        self.anonymize(self._keys)
        # The records of former identities go last: whoever does it again finds the person by them.
        end_renaming(self.client, [*digests, *self._coming])
        self._erase_forwards(partitions, digests)
        return sorted(digest.hex() for digest in digests)

    def files(self) -> list[str]:
        """Return the files that were exported here, and still mention the person."""
        return files_that_mention(self.client, self._mention)

    def _stop_arrivals(
        self, partitions: Iterable[PartitionKeys], people: Iterable[KnownPerson]
    ) -> None:
        """Erase the records that announce a new identity of the person: no letter may go there."""
        arriving = {Forward(Moving.ARRIVING, person.digest.hex()).dumps() for person in people}
        for partition in partitions:
            rows = chain.from_iterable(scan_fields(self.client, partition.forwards))
            gone = [name for name, text in rows if text in arriving]
            if gone:
                self.client.hdel(partition.forwards, *gone)

    def _people(self, partitions: Sequence[PartitionKeys]) -> list[KnownPerson]:
        """Return the person under all identities, the earliest first."""
        found = list(read_forwards(self.client, partitions))
        forwards = [each for each in found if each.forward.moving is not Moving.ARRIVING]
        last = present_key(forwards, digest_of(self.key)) or self.key
        own = KnownPerson(digest_of(last), partition_of(last, self.settings.redis.partitions))
        people = [*reversed(former_identities(forwards, own.digest)), own]
        digests = {person.digest for person in people}
        told = {each.forward.to for each in forwards if each.person.digest in digests}
        self._keys = list(dict.fromkeys([last, self.key, *sorted(told)]))
        self._mention = Mention(
            frozenset(digests),
            self.settings.delivery.identity,
            [value_of(key) for key in self._keys],
        )
        self._coming = [
            bytes.fromhex(each.forward.to)
            for each in found
            if each.forward.moving is Moving.ARRIVING and each.person.digest in digests
        ]
        return people

    def _await_answers(self, partition: PartitionKeys, digest: bytes) -> None:
        """Wait until no request about the person is open: its answer would write the ledger."""
        ends_at = time.monotonic() + _ANSWER_SECONDS
        while True:
            intents: Any = self.client.hvals(partition.intents)
            if not any(digest.hex().encode() in intent for intent in intents):
                return
            if time.monotonic() > ends_at:
                raise OperationsMustAct(
                    "A request about this person has got no sure answer yet. A worker has to run;"
                    " run this again in a minute."
                )
            self.sleep(_LOOK_SECONDS)

    def _leased(self, partition: PartitionKeys) -> AbstractContextManager[HeldLease]:
        return held(HeldLease(self.client, partition, _OWNER))

    def _erase_in(self, partition: PartitionKeys, lease: HeldLease, digest: bytes) -> None:
        for stream in find_streams(self.client, [partition]):
            self.counts["waiting"] += self._take_back(stream, digest)
        syncs = [SyncStore(self.client, name, self.settings.redis) for name in self.settings.sync]
        members = [partition.members(sync.name) for sync in syncs]
        known = [partition.reached, partition.who, *members]
        names: list[str | bytes] = [partition.lease, partition.ledger(digest), *known]
        # The key of a former identity may be known to nobody but a sync: it is found by its digest.
        known_keys = {
            key for sync in syncs for key, _ in sync.members(partition) if digest_of(key) == digest
        }
        own = map(PROTECTION.seal_name, {*self._keys, *known_keys})
        call = ScriptCall(names, (lease.token, digest.hex(), *own))
        (answer,) = opened.run(self.client, "forget", [call])
        if answer[0] < 0:
            raise LeaseLost(f"The lease of {partition.tag} was taken over; run this again.")
        for what, count in zip(("ledgers", "verify", "sync members"), answer, strict=True):
            self.counts[what] += count
        self.counts["history"] += self._delete(partition.history, bytes)
        self.client.unlink(partition.answered)  # who knows the person could find their marks
        self.counts["responses"] += self._delete(
            partition.responses, lambda stored: self._opened(stored, RESPONSES)
        )

    def _take_back(self, stream: Stream, digest: bytes) -> int:
        own = [
            entry
            for entry in read_entries(self.client, stream)
            if entry.header and entry.header.digest == digest
        ]
        if not own:
            return 0
        return take_back_entries(self.client, stream, own, log_bytes(self.settings))

    def _delete(self, stream: str, text_of: Callable[[bytes], bytes]) -> int:
        """Delete the entries of a stream that mention the person."""
        rows: Any = self.client.xrange(stream)
        ids = [
            entry_id
            for entry_id, fields in rows
            if any(self._mention.stands_in(text_of(stored)) for stored in fields.values())
        ]
        return int(self.client.xdel(stream, *ids)) if ids else 0

    def _erase_dead_letters_on_their_way(
        self, partitions: Sequence[PartitionKeys], wanted: Filter
    ) -> None:
        """Erase letters that an interrupted renaming of the person was moving.

        None arrives any more, since the records are gone without which none may.
        """
        for partition in partitions:
            texts: Any = self.client.hgetall(partition.dead_letters_leaving)
            found = [dead_letter_at(partition, text) for text in texts.values()]
            own = [one for one in found if matches(one, wanted)]
            if own:
                arrived = [self._has_arrived(one, partition, partitions) for one in own]
                self.counts["letters"] += discard_leaving(
                    self.client, self.settings, partition, own, arrived
                )

    def _has_arrived(
        self, one: StoredDeadLetter, left: PartitionKeys, partitions: Sequence[PartitionKeys]
    ) -> bool:
        """Say whether a letter stands at the new identity as well: it is counted there."""
        digest, short = digest_of_dead_letter(one), one["id"].rpartition(".")[2]
        there = [to for to in partitions if to.id == left.id]
        marks = ask_each(
            self.client,
            there,
            lambda pipe, to: pipe.hexists(
                to.carried(digest), f"letter|{to.id}.{to.number}.{short}"
            ),
        )
        return any(marks)

    def _erase_elsewhere(self, digests: Sequence[bytes]) -> None:
        """Erase from the quarantine, the bad rows of backfills, and the requests to the receiver.

        A request is forgotten as a whole, whoever else it was about.
        """
        quarantine = Quarantine(self.client)
        ids = [
            record.id
            for record in quarantine.records()
            if self._mention.stands_in(self._quarantined(quarantine, record.id))
        ]
        self.counts["quarantine"] += quarantine.remove(ids)
        self.counts["requests"] += forget_requests(self.client, digests)
        jobs: Any = self.client.smembers(keys.JOBS)
        for job in jobs:
            name = keys.job_bad_rows(job.decode())
            rows: Any = self.client.lrange(name, 0, -1)
            for row in rows:
                if self._mention.stands_in(self._opened(row, BAD_ROWS)):
                    self.counts["bad rows"] += int(self.client.lrem(name, 0, row))

    def _opened(self, sealed: bytes, place: bytes) -> bytes:
        try:
            return PROTECTION.unseal(sealed, place)
        except PayloadRefused:
            self.damaged[place.decode()] += 1
            return b""

    def _quarantined(self, quarantine: Quarantine, record_id: str) -> bytes:
        text = quarantine.text(record_id)
        self.damaged["quarantine"] += text is None
        return text or b""

    def _erase_outcomes(self, digests: Sequence[bytes]) -> int:
        """Take the person out of rows about outcomes; return how many streams keep them."""
        people = frozenset(digest.hex() for digest in digests)
        too_long = 0
        for partition in all_partitions(self.client, self.settings):
            anew: dict[bytes, bytes] = {}
            rows = 0
            for entry_id, fields in entries(self.client, Range(partition, "-", "+")):
                text, theirs = without_people(fields[b"r"], people)
                if theirs:
                    anew[entry_id] = text
                    rows += theirs
            if anew:
                call = script_call(
                    opened.source("outcomes_forget"),
                    partition,
                    longest=_LONGEST_OUTCOMES,
                    entries={"id": list(anew), "rows": list(anew.values())},
                )
                (answer,) = opened.run(self.client, "outcomes_forget", [call])
                too_long += answer < 0
                self.counts["outcomes"] += rows if answer > 0 else 0
        return too_long

    def _erase_stable_ids(
        self, partitions: Sequence[PartitionKeys], people: Sequence[KnownPerson]
    ) -> None:
        for changes in self._identity_changes(partitions):
            for one in people:
                self.counts["stable ids"] += changes.forget(one.digest, one.partition, self._keys)

    def _identity_changes(self, partitions: Sequence[PartitionKeys]) -> list[IdentityChanges]:
        return [
            IdentityChanges(self.client, self.settings.redis, destination)
            for destination in destinations_of(partitions)
        ]

    def _erase_forwards(
        self, partitions: Sequence[PartitionKeys], digests: Sequence[bytes]
    ) -> None:
        for digest in digests:
            for partition in partitions:
                self.counts["former identities"] += self._erase_record(partition, digest.hex())

    def _erase_record(self, partition: PartitionKeys, digest: str) -> int:
        """Erase the record of a person's renaming, and the marks of sync members beside it."""
        gone = [
            name
            for name, _ in chain.from_iterable(scan_fields(self.client, partition.forwards))
            if name.decode().partition("|")[0] == digest
        ]
        self.client.unlink(partition.carried(digest))
        return int(self.client.hdel(partition.forwards, *gone)) if gone else 0


def rewrite_files(client: Redis) -> bool:
    """Make Redis rewrite its append-only file, so that no older part of it holds erased data.

    Returns:
        Whether that is done; a user with few rights may not ask for it.
    """
    try:
        if not client.info("persistence").get("aof_enabled"):
            return True
        client.bgrewriteaof()
        while _is_rewriting(client.info("persistence")):
            time.sleep(_LOOK_SECONDS)
    except NotPermitted:
        return False
    return True


def _is_rewriting(persistence: Mapping[str, Any]) -> bool:
    return bool(persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"])
