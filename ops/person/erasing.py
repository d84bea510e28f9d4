"""Erasing a person from Redis: streams, ledger, letters, quarantine, syncs, and former identities.

What was found is counted, and nothing of it is kept. A command that was killed is given again: the
records of former identities go last, since they say under which digests there may be more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis
from redis.exceptions import NoPermissionError

from ops.letters.reading import Filter, find_letters
from ops.letters.replay import discard
from ops.moving.held import HeldLease, held
from ops.state import scripts
from ops.state.partitions import all_partitions
from ops.state.waiting import Stream, find_streams, read_entries, take_back_entries
from producer.publishing.quarantine import Quarantine
from worker.contract import keys
from worker.contract.forwards import Forward
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall
from worker.contract.settings import Settings
from worker.errors import OperationsMustAct

_OWNER: Final = "segrelay person erase"
_ANSWER_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.2
_FIELDS_A_CALL: Final = 1_000


@dataclass(slots=True)
class Erasing:
    """Erases one person.

    Args:
        key: Of the profile.
        counts: What was found and erased, by what it was.
    """

    client: Redis
    settings: Settings
    key: str
    sleep: Callable[[float], None] = time.sleep
    counts: Counter[str] = field(default_factory=Counter)

    def run(self) -> list[str]:
        """Erase, and return the digests (hex) under which the person was known.

        Raises:
            OperationsMustAct: A request about the person is unanswered; do it again.
            RedisUnavailable: Do it again.
        """
        places = all_partitions(self.client, self.settings)
        digests = self._digests(places)
        for place in places:
            self._await_answers(place, digests)
            with held(HeldLease(self.client, place, _OWNER)) as lease:
                self._erase_in(place, lease, digests)
        letters = (
            letter["id"]
            for digest in digests
            for letter in find_letters(self.client, places, Filter(digest=digest.hex()))
        )
        self.counts["letters"] += sum(discard(self.client, places, list(letters)))
        self._erase_elsewhere()
        for place in places:
            self._erase_forwards(place, digests)
        return sorted(digest.hex() for digest in digests)

    def _digests(self, places: Sequence[PartitionKeys]) -> list[bytes]:
        """Return the person's own digest, and those of all former identities."""
        found = {digest_of(self.key)}
        for place in places:
            for name, text in self._scan(place.forwards):
                if b"|" not in name and Forward.loads(text).to == self.key:
                    found.add(bytes.fromhex(name.decode()))
        return sorted(found)

    def _scan(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        with redis_errors():
            yield from self.client.hscan_iter(name, count=_FIELDS_A_CALL)

    def _await_answers(self, place: PartitionKeys, digests: Sequence[bytes]) -> None:
        """Wait until no request about the person is open: its end would tell the ledger of it."""
        ends_at = time.monotonic() + _ANSWER_SECONDS
        wanted = [digest.hex().encode() for digest in digests]
        while True:
            with redis_errors():
                notes: Any = self.client.hvals(place.notes)
            if not any(digest in note for note in notes for digest in wanted):
                return
            if time.monotonic() > ends_at:
                raise OperationsMustAct(
                    "A request about this person has got no sure answer yet. A worker has to run;"
                    " run this again in a minute."
                )
            self.sleep(_LOOK_SECONDS)

    def _erase_in(self, place: PartitionKeys, lease: HeldLease, digests: Sequence[bytes]) -> None:
        wanted = frozenset(digests)
        for stream in find_streams(self.client, [place]):
            self.counts["waiting"] += self._take_back(stream, wanted)
        syncs = [place.members(name) for name in self.settings.sync]
        for digest in digests:
            known = [place.reached, place.who, *syncs]
            names: list[str | bytes] = [place.lease, place.ledger(digest), *known]
            call = ScriptCall(names, (lease.token, digest.hex(), self.key))
            (answer,) = scripts.run(self.client, "forget", [call])
            if answer[0] < 0:
                raise OperationsMustAct(f"The lease of {place.tag} was taken over; run this again.")
            for what, count in zip(("ledgers", "verify", "sync members"), answer, strict=True):
                self.counts[what] += count
        texts = [digest.hex().encode() for digest in digests]
        self.counts["history"] += self._delete(place.history, texts)
        self.counts["responses"] += self._delete(place.responses, [*texts, self._value])

    def _take_back(self, stream: Stream, digests: frozenset[bytes]) -> int:
        ids = [
            entry.entry_id
            for entry in read_entries(self.client, stream)
            if entry.header and entry.header.digest in digests
        ]
        return take_back_entries(self.client, stream, ids) if ids else 0

    @property
    def _value(self) -> bytes:
        return self.key.partition(":")[2].encode()

    def _delete(self, stream: str, texts: Iterable[bytes]) -> int:
        """Delete the entries of a stream that hold one of these texts."""
        wanted = [text.lower() for text in texts]
        with redis_errors():
            rows: Any = self.client.xrange(stream)
            ids = [
                entry_id
                for entry_id, fields in rows
                if any(text in value.lower() for value in fields.values() for text in wanted)
            ]
            return int(self.client.xdel(stream, *ids)) if ids else 0

    def _erase_elsewhere(self) -> None:
        """Erase from the quarantine, and from the bad rows of backfills."""
        quarantine = Quarantine(self.client)
        ids = [
            record.id
            for record in quarantine.records()
            if self._value in (quarantine.text(record.id) or b"").lower()
        ]
        self.counts["quarantine"] += quarantine.remove(ids)
        with redis_errors():
            jobs: Any = self.client.smembers(keys.JOBS)
            for job in jobs:
                name = keys.job_bad_rows(job.decode())
                rows: Any = self.client.lrange(name, 0, -1)
                for row in rows:
                    if self._value in row.lower():
                        self.counts["bad rows"] += int(self.client.lrem(name, 0, row))

    def _erase_forwards(self, place: PartitionKeys, digests: Sequence[bytes]) -> None:
        wanted = {digest.hex() for digest in digests}
        gone = [
            name
            for name, _ in self._scan(place.forwards)
            if name.decode().partition("|")[0] in wanted
        ]
        if gone:
            with redis_errors():
                self.counts["former identities"] += int(self.client.hdel(place.forwards, *gone))


def rewrite_files(client: Redis) -> bool:
    """Have Redis write its file anew, so that no older part of it holds erased data.

    Returns:
        Whether that is done; a user with few rights may not ask for it.
    """
    with redis_errors():
        try:
            if not client.info("persistence").get("aof_enabled"):
                return True
            client.bgrewriteaof()
            while _is_rewriting(client.info("persistence")):
                time.sleep(_LOOK_SECONDS)
        except NoPermissionError:
            return False
    return True


def _is_rewriting(persistence: Mapping[str, Any]) -> bool:
    return bool(persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"])
