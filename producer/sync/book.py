"""The book of syncs in Redis: state and lock of each, members and tokens of the partitions."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import NoScriptError

from producer.sync.run import Run
from worker.contract import keys
from worker.contract.keys import PartitionKeys, partition_of
from worker.contract.redis.connection import redis_errors
from worker.errors import LeaseLost

LOCK_MS: Final = 20_000
"""Longer than a step takes; each saving of the state extends it."""
_FIELDS_A_CALL: Final = 1_000


class SyncBook:
    """What Redis holds of one sync.

    Args:
        name: The sync's.
        partitions: Of each destination.
    """

    def __init__(self, client: Redis, name: str, partitions: int) -> None:
        self._client = client
        self.name = name
        self._partitions = partitions
        self._token = secrets.token_hex(8)

    def take(self) -> tuple[Run, int] | None:
        """Take the lock; returns the state and Redis' clock (ms), None if a step is under way."""
        names = (keys.sync(self.name), keys.sync_bell(self.name))
        now_ms, *state = self._call("take", names, self._token, LOCK_MS)
        return (Run.loads(state[0]), int(now_ms)) if state else None

    def save(self, run: Run, *, ends: bool = False) -> None:
        """Write the state; the lock goes on, or ends.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        lasting_ms = 0 if ends else LOCK_MS
        kept = self._call(
            "save", (keys.sync(self.name),), self._token, lasting_ms, run.dumps(), run.next_ms
        )
        if not kept:
            raise LeaseLost(f"Another step of sync '{self.name}' has begun; this one ends.")

    def peek(self) -> Run:
        """Return the state as it is now."""
        with redis_errors():
            text: Any = self._client.hget(keys.sync(self.name), "state")
        return Run.loads(text or b"")

    def now_ms(self) -> int:
        """Return Redis' clock."""
        with redis_errors():
            seconds, micros = self._client.time()
        return int(seconds) * 1_000 + int(micros) // 1_000

    def claim(self, run: Run) -> None:
        """Let this run, and no other, change the members of its places."""
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for place in self.places(run.destinations):
                pipe.hset(place.synctokens, self.name, run.token)
            pipe.execute()

    def places(self, destinations: Sequence[str]) -> list[PartitionKeys]:
        """Return the partitions of these destinations."""
        return [
            PartitionKeys(destination, number)
            for destination in destinations
            for number in range(self._partitions)
        ]

    def marks(self, destination: str, profile_keys: Sequence[str]) -> dict[str, bytes]:
        """Return the marks of those of these people who are known."""
        parts: dict[int, list[str]] = {}
        for key in profile_keys:
            parts.setdefault(partition_of(key, self._partitions), []).append(key)
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for number, members in parts.items():
                pipe.hmget(PartitionKeys(destination, number).members(self.name), members)
            answers = pipe.execute()
        return {
            key: mark
            for members, marks in zip(parts.values(), answers, strict=True)
            for key, mark in zip(members, marks, strict=True)
            if mark is not None
        }

    def members(self, place: PartitionKeys) -> Iterator[tuple[str, bytes]]:
        """Yield key and mark of the members of one partition; some may come twice."""
        cursor = 0
        while True:
            with redis_errors():
                answer = self._client.hscan(place.members(self.name), cursor, count=_FIELDS_A_CALL)
            cursor, found = cast("tuple[int, dict[bytes, bytes]]", answer)
            for key, mark in found.items():
                yield key.decode(), mark
            if not cursor:
                return

    def count(self, destination: str) -> int:
        """Return how many members are known at a destination."""
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for place in self.places([destination]):
                pipe.hlen(place.members(self.name))
            return sum(pipe.execute())

    def forget(self, destinations: Sequence[str]) -> None:
        """Forget all that is known; the next run is the first."""
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for place in self.places(destinations):
                pipe.hdel(place.synctokens, self.name)
                pipe.unlink(place.members(self.name))
            pipe.unlink(keys.sync(self.name), keys.sync_bell(self.name))
            pipe.execute()

    def _call(self, script: str, names: Sequence[str], *args: str | bytes | int) -> Any:
        text = _script(script)
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        with redis_errors():
            try:
                return self._client.evalsha(digest, len(names), *names, *args)
            except NoScriptError:
                return self._client.eval(text, len(names), *names, *args)


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lua").read_text()
