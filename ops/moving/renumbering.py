"""Changing the number of partitions: everything that is kept by partition goes to new ones.

The new partitions have numbers that there never were. It is announced first, in one write: from
then on syncs and shippings begin no step. Then the leases of the former partitions are taken for
good, which makes every script refuse that would add something there, however long its process
stood still. When all is carried over, the new number holds, in one write; workers and producers
read it when they are refused, or woken a partition that they do not know. Whatever interrupts
it, running it again goes on.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from redis import Redis

from segrelay.ops.moving.carrying import Carrier
from segrelay.ops.moving.contents import Contents, end_halves, leftovers
from segrelay.ops.moving.leases import (
    FOR_EVER_MS,
    PATIENCE_SECONDS,
    RENAMED,
    HeldLease,
    hold_all,
    taken_turn,
)
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import Carried, known_destinations, note_carried, read_carried
from segrelay.producer.steps import StepStore
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.adapters.redis.shared_keys import read_renamed
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.partitions import RENUMBERED_LEASE, Numbering
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.redis.connection import redis_errors
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable

_RENEWED_SECONDS: Final = 2.5
_HELD_MS: Final = 10_000
"""Duration of a lease in ms. No worker knows the new partitions yet, so that a lease may lapse; the
next attempt waits for it."""
_MOST_TURNS: Final = 3
_MS: Final = 1_000


@dataclass(slots=True)
class Renumbering:
    """Changes the number of partitions, or goes on with a change that was interrupted.

    Args:
        patience_seconds: The longest wait for a worker, beside the deadline of a request.
    """

    client: Redis
    settings: Settings
    count: int
    tell: Callable[[Carried], None] = lambda _: None
    patience_seconds: float = PATIENCE_SECONDS
    carried: Carried = field(default_factory=Carried)
    _targets: list[HeldLease] = field(default_factory=list)
    _renewed_at: float = -math.inf

    def run(self) -> Carried:
        """Move everything to the new partitions; return the counts, with those of broken attempts.

        Raises:
            OperationsMustAct: A worker goes on draining, a step of a sync goes on, or it is being
                changed to another number.
            FormatUnknown: Another version of segrelay wrote some of it.
            RedisUnavailable: What is done stays done.
        """
        self._targets.clear()
        self._renewed_at = -math.inf
        numbering = learn_numbering(self.client, self.settings)
        if numbering.target or numbering.count != self.count:
            self._change(numbering)
        else:
            self._sweep(numbering)
        return self.carried

    def _change(self, numbering: Numbering) -> None:
        if not numbering.target:
            begun = replace(numbering, target=self.count)
            self._write(numbering, begun)
            note_carried(self.client, self.carried)
            numbering = begun
        elif numbering.target != self.count:
            raise OperationsMustAct(
                f"The number of partitions is being changed to {numbering.target}: finish that by"
                f" `segrelay redis partitions {numbering.target}` first."
            )
        self.carried = read_carried(self.client)
        self._carry(numbering.numbers, numbering.following, begins=True)
        self._write(numbering, numbering.following)
        learn_numbering(self.client, self.settings)
        self._let_go()

    def _sweep(self, numbering: Numbering) -> None:
        """Carry over what was written into former partitions after they were left.

        The leases that an interrupted change has not taken for good are taken now.
        """
        self._close_renamed(numbering.numbers)
        left = sorted(self._left(range(numbering.first))) if numbering.first else []
        if left:
            self._carry(left, numbering, begins=False)
            self._let_go()
            with redis_errors():
                self.client.unlink(keys.RENUMBERING)

    def _write(self, before: Numbering, after: Numbering) -> None:
        call = ScriptCall((keys.PARTITIONS, keys.RENUMBERING), (before.dumps(), after.dumps()))
        if not opened.run(self.client, "renumber", [call], replicated=True)[0]:
            raise OperationsMustAct(
                "Somebody else changes the number of partitions at this moment; `segrelay redis"
                " partitions` tells how far it is."
            )

    def _carry(self, numbers: Iterable[int], into: Numbering, *, begins: bool) -> None:
        """Carry what these partitions hold over to the partitions of a numbering."""
        numbers = list(numbers)
        everything = [self._contents(name, numbers, into) for name in self._destinations()]
        try:
            hold_all(self.client, [c.old for one in everything for c in one.carriers.values()])
            self._renew()
            if begins:
                self._end_steps(into)
            end_halves(everything)
            self._move(everything, numbers)
        except RedisUnavailable:
            raise  # the leases lapse by themselves
        except BaseException:
            self._let_go()
            raise

    def _move(self, everything: Sequence[Contents], numbers: Sequence[int]) -> None:
        for _ in range(_MOST_TURNS):
            for contents in everything:
                contents.move()
            if not self._left(numbers):
                break
        else:
            raise OperationsMustAct(
                "Something goes on writing into the former partitions: an older version of"
                " segrelay? Stop it, and run this again."
            )
        for contents in everything:
            contents.forget_marks()

    def _destinations(self) -> list[str]:
        return sorted({*known_destinations(self.client, self.settings), *read_renamed(self.client)})

    def _contents(self, destination: str, numbers: list[int], into: Numbering) -> Contents:
        targets = tuple(self._lease(destination, number) for number in into.numbers)
        self._targets += targets
        carriers = {
            number: Carrier(
                self.client,
                replace(
                    self._lease(destination, number), token=RENUMBERED_LEASE, length_ms=FOR_EVER_MS
                ),
                targets,
                round(_MS * self.settings.delivery.ledger_retention_seconds),
                choose=lambda digest: into.of_digest(digest) - into.first,
                home=number % into.count,
                prefix=f"{number}|",
            )
            for number in numbers
        }
        return Contents(
            self.client,
            destination,
            carriers,
            self._renew,
            self._tell,
            self.carried,
            follow=lambda record: _followed(record, into),
        )

    def _lease(self, destination: str, number: int) -> HeldLease:
        deadline_seconds = self.settings.delivery.request_deadline_seconds
        return HeldLease(
            self.client,
            PartitionKeys(destination, number),
            f"{socket.gethostname()}:redis-partitions",
            length_ms=_HELD_MS,
            takes=RENAMED,
            patience_seconds=self.patience_seconds + deadline_seconds,
        )

    def _renew(self) -> None:
        """Renew the leases of the new partitions if it is time."""
        while self._targets and time.monotonic() > self._renewed_at + _RENEWED_SECONDS:
            self._renewed_at = time.monotonic()
            hold_all(self.client, self._targets)
            note_carried(self.client, self.carried)

    def _tell(self, carried: Carried) -> None:
        note_carried(self.client, carried)
        self.tell(carried)

    def _let_go(self) -> None:
        """Give back the leases of the new partitions, except those of renamed destinations."""
        for lease in self._targets:
            lease.let_go()
        self._close_renamed({lease.place.partition for lease in self._targets})
        self._targets.clear()

    def _close_renamed(self, numbers: Iterable[int]) -> None:
        """Take the leases of renamed destinations for good: nobody drains under a former name."""
        for former, new_name in read_renamed(self.client).items():
            for number in numbers:
                lease = self._lease(former, number)
                replace(lease, token=RENAMED + new_name, length_ms=FOR_EVER_MS).hold()

    def _left(self, numbers: Collection[int]) -> set[int]:
        """Return which of these partitions still hold anything."""
        return {
            number
            for destination in self._destinations()
            for number in leftovers(self.client, destination, numbers, self._renew)
        }

    def _end_steps(self, into: Numbering) -> None:
        """Wait until no step of a sync, a shipping or a renaming of people is under way.

        None begins meanwhile.
        """
        for name in self.settings.sync:
            book = SyncStore(self.client, name, into)
            run, _ = taken_turn(book.take, f"sync '{name}'", self._renew)
            run.give_up()
            book.save(run, ends=True)
        for name in self._destinations():
            self._end_step(keys.responses(name), f"responses of '{name}'")
            self._end_step(keys.changes(name), f"renaming at '{name}'")

    def _end_step(self, key: str, shown: str) -> None:
        with redis_errors():
            is_there = self.client.exists(key)
        if is_there:
            steps = StepStore(self.client, key, shown)
            state, now_ms = taken_turn(steps.take, f"the {shown}", self._renew)
            steps.save(state, next_ms=now_ms, ends=True)


def _followed(record: bytes, into: Numbering) -> bytes:
    """Return the record of a person who was renamed, with the new number of their partition."""
    try:
        forward = Forward.loads(record)
    except (ValueError, KeyError, TypeError):
        return record  # the mark of a member
    if forward.moving is Moving.ARRIVING:
        return record
    return replace(forward, partition=into.of(forward.to)).dumps()
