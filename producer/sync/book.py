"""The book of syncs in Redis: state and lock of each, members and tokens of the partitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from redis import Redis

from producer.steps import StepBook
from producer.sync.run import Run
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.numbering import Numbering
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_fields
from worker.contract.redis.scripts import ScriptCall, run_each
from worker.errors import PartitionsChange

_CLAIM: Final = (Path(__file__).parent / "claim.lua").read_text()


class SyncBook:
    """The record of one sync in Redis."""

    def __init__(self, client: Redis, name: str, partitions: Numbering) -> None:
        self._client = client
        self.name = name
        self._partitions = partitions
        self._steps = StepBook(client, keys.sync(name), keys.sync_bell(name), f"sync '{name}'")

    def take(self) -> tuple[Run, int] | None:
        """Take the lock; returns the state and Redis' clock (ms), None if a step is under way."""
        taken = self._steps.take()
        return (Run.loads(taken[0]), taken[1]) if taken else None

    def save(self, run: Run, *, ends: bool = False) -> None:
        """Write the state; the lock goes on, or ends.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        self._steps.save(run.dumps(), next_ms=run.next_ms, ends=ends)

    def peek(self) -> Run:
        """Return the state as it is now."""
        return Run.loads(self._steps.peek())

    def now_ms(self) -> int:
        """Return Redis' clock."""
        return self._steps.now_ms()

    @property
    def token(self) -> str:
        """Return the name by which partitions know the step that has claimed them."""
        return f"step {self._steps.epoch}"

    def claim(self, destinations: Sequence[str]) -> None:
        """Claim the members at destinations for this step, and exclude all earlier steps.

        Raises:
            LeaseLost: A later step has claimed one of the partitions.
            PartitionsChange: They have other numbers by now, or are about to.
        """
        self._claim(destinations)

    def _claim(self, destinations: Sequence[str], *, forgets: bool = False) -> None:
        args = (self.name, self._steps.epoch, int(forgets))
        calls = [
            ScriptCall((place.synctokens, place.members(self.name), place.lease), args)
            for place in self.places(destinations)
        ]
        answers = run_each(self._client, _CLAIM, calls)
        if -1 in answers:
            raise PartitionsChange
        if not all(answers):
            raise self._steps.lost()

    def places(self, destinations: Sequence[str]) -> list[PartitionKeys]:
        """Return the partitions of these destinations."""
        return [
            PartitionKeys(destination, number)
            for destination in destinations
            for number in self._partitions.numbers
        ]

    def marks(self, destination: str, profile_keys: Sequence[str]) -> dict[str, bytes]:
        """Return the marks of the people among these who are known members."""
        parts: dict[int, list[str]] = {}
        for key in profile_keys:
            parts.setdefault(self._partitions.of(key), []).append(key)
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
        for found in scan_fields(self._client, place.members(self.name)):
            for member, mark in found:
                yield member.decode(), mark

    def count(self, destination: str) -> int:
        """Return how many members are known at a destination."""
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for place in self.places([destination]):
                pipe.hlen(place.members(self.name))
            return sum(pipe.execute())

    def forget(self, destinations: Sequence[str]) -> None:
        """Forget all that is known, so that the next run is the first; the lock must be held.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        self._claim(destinations, forgets=True)
        self._steps.save(b"", next_ms=0, ends=True)
