"""The syncs in Redis: the state and the lock of each, its members with their marks, and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.steps import StepStore
from segrelay.producer.sync.run import Run
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.ledger import AUDIENCE_NAME, LastDelivered, standing, unpack_all
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.accept import ENTRANT_DAYS, field_of_member, key_of_member
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.words import Direction

_CLAIM: Final = load_script("claim", Path(__file__).parent)


class SyncStore(StepStore[Run]):
    """The record of one sync in Redis: the state of its run, its lock and its members."""

    def __init__(self, client: Redis, name: str, settings: RedisSettings) -> None:
        super().__init__(client, keys.sync(name), f"sync '{name}'", Run)
        self.name = name
        self._settings = settings

    @property
    def token(self) -> str:
        """Return the name by which partitions know the step that has claimed them."""
        return f"step {self.epoch}"

    def claim(self, destinations: Sequence[str], *, forgets: bool = False) -> None:
        """Claim the members at destinations for this step, and exclude all earlier steps.

        Args:
            destinations: Their names.
            forgets: Delete the members.

        Raises:
            LeaseLost: A later step has claimed one of the partitions.
        """
        args = (self.name, self.epoch, int(forgets))
        calls = [
            ScriptCall((partition.synctokens, partition.members(self.name)), args)
            for partition in self.partitions(destinations)
        ]
        answers = run_each(self._client, _CLAIM, calls)
        if not all(answers):
            raise self.lost()

    def partitions(self, destinations: Sequence[str]) -> list[PartitionKeys]:
        """Return the partitions of these destinations."""
        return [
            PartitionKeys(destination, number)
            for destination in destinations
            for number in range(self._settings.partitions)
        ]

    def marks(self, destination: str, profile_keys: Sequence[str]) -> dict[str, bytes]:
        """Return the marks of those of these people who are members, by profile key."""
        parts = self._by_partition(destination, profile_keys)
        pipe = self._client.pipeline(transaction=False)
        for partition, members in parts.items():
            pipe.hmget(partition.members(self.name), list(map(field_of_member, members)))
        return {
            key: mark
            for members, marks in zip(parts.values(), pipe.execute(), strict=True)
            for key, mark in zip(members, marks, strict=True)
            if mark is not None
        }

    def last_delivered(
        self, destination: str, audience: str, profile_keys: Sequence[str]
    ) -> dict[str, LastDelivered]:
        """Return the newest delivery about an audience, of those people of whom there is any."""
        number: Any = self._client.hget(keys.NAMES, AUDIENCE_NAME + audience)
        if number is None:
            return {}
        parts = self._by_partition(destination, profile_keys)
        pipe = self._client.pipeline(transaction=False)
        for partition, people in parts.items():
            pipe.mget([partition.ledger(keys.digest_of(key)) for key in people])
        answers = pipe.execute()
        texts = {
            key.encode(): text
            for people, found in zip(parts.values(), answers, strict=True)
            for key, text in zip(people, found, strict=True)
        }
        records, _ = unpack_all(texts)  # one that can't be read says nothing
        standings = ((key.decode(), standing(one, int(number))) for key, one in records.items())
        return {key: last for key, last in standings if last}

    def _by_partition(
        self, destination: str, profile_keys: Sequence[str]
    ) -> dict[PartitionKeys, list[str]]:
        parts: dict[int, list[str]] = {}
        for key in profile_keys:
            parts.setdefault(partition_of(key, self._settings.partitions), []).append(key)
        return {PartitionKeys(destination, number): people for number, people in parts.items()}

    def reached(self, partition: PartitionKeys, identity: str) -> list[str]:
        """Return the keys of the people of a partition that Redis knows from delivering to them.

        Of a partition with many people these are a sample, see `keys.REACHED_KEPT`.
        """
        stored: Any = self._client.hgetall(partition.who)
        found = []
        for digest, text in stored.items():
            known_as = orjson.loads(PROTECTION.unseal(text, digest))[1] or {}
            texts = [str(value).strip() for value in known_as.get("identifiers", {}).values()]
            spelled = (f"{identity}:{text}" for given in texts for text in (given, given.lower()))
            known = (key for key in spelled if digest_of(key).hex().encode() == digest)
            found += [key] if (key := next(known, "")) else []
        return found

    def pages(self, partition: PartitionKeys) -> Iterator[dict[str, bytes]]:
        """Yield the marks of the members of one partition by key, some at a time, or twice."""
        for fields in scan_fields(self._client, partition.members(self.name)):
            yield {key_of_member(field.decode()): mark for field, mark in fields}

    def members(self, partition: PartitionKeys) -> Iterator[tuple[str, bytes]]:
        """Yield key and mark of the members of one partition; some may come twice."""
        for found in self.pages(partition):
            yield from found.items()

    def count(self, destination: str) -> int:
        """Return how many members are known at a destination."""
        return count_members(self._client, self.name, self.partitions([destination]))

    def forget(self, destinations: Sequence[str]) -> None:
        """Delete state and members of the sync: its next run is the first. The lock must be held.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        self.claim(destinations, forgets=True)
        self.save(Run(), ends=True)


def count_members(client: Redis, sync: str, partitions: Iterable[PartitionKeys]) -> int:
    """Return how many members a sync knows in some partitions."""
    pipe = client.pipeline(transaction=False)
    for partition in partitions:
        pipe.hlen(partition.members(sync))
    return sum(pipe.execute())


UID: Final = "_uid"
NOT_KNOWN: Final = b"-"
"""A digest in a mark that nobody has made."""
_HASH_BYTES: Final = 6
_DAY_MS: Final = 86_400_000


class Mark(NamedTuple):
    """The mark of a member.

    Redis keeps one for each member, as a text: run, id and content, and the time if there is one.

    Attributes:
        run: The last that saw them. 0 = none did, but an entrance was accepted: if the person
            leaves before a run, nobody else knows who they are.
        uid: The digest of their id; in run 0, when the entrance was accepted (ms).
        content: The digest of their profile.
        answered_us: Time of the exit in the ledger after which the sync has published an entrance.
    """

    run: int
    uid: bytes = NOT_KNOWN
    content: bytes = NOT_KNOWN
    answered_us: int = 0

    @property
    def is_name(self) -> bool:
        """Say whether no run has seen the person yet."""
        return self.run == 0

    def is_needed(self, last: LastDelivered | None, now_ms: int) -> bool:
        """Say whether the name of somebody whom no run has seen may be needed for an exit."""
        accepted_ms = int(self.uid)
        if last and last[0] is Direction.ENTER:
            return True
        if last and last[1] > 1_000 * accepted_ms:
            return False
        return now_ms - accepted_ms < ENTRANT_DAYS * _DAY_MS

    def dumps(self) -> bytes:
        """Return what Redis keeps."""
        answered = b" %d" % self.answered_us if self.answered_us else b""
        return b"%d %s %s" % self[:3] + answered

    @classmethod
    def loads(cls, text: bytes) -> Mark:
        """Read the mark that `dumps` wrote."""
        run, uid, content, *answered = text.split(b" ")
        return cls(int(run), uid, content, *map(int, answered))

    def differs(self, other: Mark) -> bool:
        """Say whether both marks have a digest of the content, and these differ."""
        return self.content != other.content and NOT_KNOWN not in (self.content, other.content)


def uid_of(row: dict[str, Any]) -> bytes:
    """Return the digest of a profile's own id.

    It has 16 bits: of profiles with one identity, one in 65,536 is not told from the one before.
    """
    uid = row.get(UID)
    if uid is None:
        return NOT_KNOWN
    return b"%x" % (PROTECTION.checksum(str(uid).encode()) & 0xFFFF)


def content_hash(row: dict[str, Any], fields: Iterable[str] | None) -> bytes:
    """Return the digest of some fields of a row; None = of all."""
    wanted = row.keys() - {SEGMENT_EVENTS} if fields is None else fields
    content = {name: row[name] for name in wanted if name in row}
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return PROTECTION.digest(text, _HASH_BYTES).hex().encode()
