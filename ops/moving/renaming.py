"""Renaming a destination: everything that Redis holds under the old name goes to the new one.

The leases of the old destination are taken for good, so that no worker that still knows it drains
it. Those of the new one are held until all is there: nothing is delivered under the new name that
the ledger under the old one knows better. Whatever interrupts it, running it again goes on.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from segrelay.ops.moving.carrying import Carrier
from segrelay.ops.moving.contents import Contents
from segrelay.ops.moving.leases import (
    FOR_EVER_MS,
    PATIENCE_SECONDS,
    RENAMED,
    TAKEN_AWAY,
    HeldLease,
    giving_back,
    hold_all,
    taken_turn,
)
from segrelay.ops.state.partitions import Carried
from segrelay.producer.steps import StepStore
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.redis.claim import name_destinations, settled_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, field_of
from segrelay.worker.errors import OperationsMustAct

_RENEWED_SECONDS: Final = 5.0
_STATE: Final = "state"


@dataclass(slots=True)
class Renaming:
    """Moves everything that Redis holds about a destination to another name.

    Args:
        old: A name that the configuration does not have.
        new: One that it has.
    """

    client: Redis
    settings: Settings
    old: str
    new: str
    tell: Callable[[Carried], None] = lambda _: None
    patience_seconds: float = PATIENCE_SECONDS
    carried: Carried = field(default_factory=Carried)
    _carriers: dict[int, Carrier] = field(default_factory=dict)
    _numbering: Numbering = field(init=False)
    _renewed_at: float = -math.inf

    def run(self) -> Carried:
        """Carry everything over to the new name, and return the counts.

        Raises:
            OperationsMustAct: A worker goes on draining one of them, or a step of a sync goes on.
            PartitionsChange: The number of partitions is being changed.
            RedisUnavailable: What is done stays done.
        """
        self._renewed_at = -math.inf
        retention_ms = round(1000 * self.settings.delivery.ledger_retention_seconds)
        owner = f"{socket.gethostname()}:destination-rename"
        self._numbering = settled_numbering(self.client, self.settings)
        for number in self._numbering.numbers:
            old, new = PartitionKeys(self.old, number), PartitionKeys(self.new, number)
            kept = HeldLease(
                self.client,
                old,
                owner,
                token=RENAMED + self.new,
                length_ms=FOR_EVER_MS,
                patience_seconds=self.patience_seconds,
            )
            taken = HeldLease(
                self.client, new, owner, takes=TAKEN_AWAY, patience_seconds=self.patience_seconds
            )
            self._carriers[number] = Carrier(self.client, kept, taken, retention_ms)
        with giving_back(self._let_go):
            name_destinations(self.client, self._numbering, (self.old, self.new))
            for carrier in self._carriers.values():
                carrier.old.hold()
            self._renew()
            self._mark()
            self._carry()
        return self.carried

    def _let_go(self) -> None:
        for carrier in self._carriers.values():
            carrier.new.let_go()

    def _renew(self) -> None:
        """Renew the leases of the new destination if it is time."""
        while time.monotonic() > self._renewed_at + _RENEWED_SECONDS:
            self._renewed_at = time.monotonic()
            hold_all(self.client, [carrier.new for carrier in self._carriers.values()])

    def _mark(self) -> None:
        """Record the destination's new name in Redis, and move the pause of the old name to it."""
        paused, now_paused = field_of(DESTINATION, self.old), field_of(DESTINATION, self.new)
        pause: Any = self.client.hget(keys.PAUSED, paused)
        pipe = self.client.pipeline(transaction=False)
        pipe.hdel(keys.MOVED, self.new)
        pipe.hset(keys.MOVED, self.old, self.new)
        if pause:
            pipe.hsetnx(keys.PAUSED, now_paused, pause)
            pipe.hdel(keys.PAUSED, paused)
        pipe.execute()

    def _carry(self) -> None:
        contents = Contents(
            self.client, self.old, self._carriers, self._renew, self.tell, self.carried
        )
        self._end_changes()
        contents.move()
        self._carry_syncs()
        self._carry_responses()
        contents.forget_marks()
        if contents.staying:
            raise OperationsMustAct(
                f"{contents.staying:,} people are being renamed under {self.new}, and under"
                f" {self.old}. Everything else was carried over; a worker has to run. Give this"
                " command again in a minute."
            )

    def _carry_syncs(self) -> None:
        """Move the members that syncs know to the new name."""
        for name in self.settings.sync:
            book = SyncStore(self.client, name, self._numbering)
            if not book.peek().names(self.old):
                continue
            run, _ = taken_turn(book.take, f"sync '{name}'", self._renew)
            run.rename_destination(self.old, self.new)
            book.save(run, ends=True)

    def _carry_responses(self) -> None:
        """Move the positions up to which responses have been sent."""
        old = keys.responses(self.old)
        state = self._end_step(old, "the responses")
        if state:
            self.client.hsetnx(keys.responses(self.new), _STATE, state)
        self.client.unlink(old, keys.wakeup(old))

    def _end_changes(self) -> None:
        """End the renaming of people under the old name."""
        old = keys.changes(self.old)
        self._end_step(old, "the renaming of people")
        self.client.unlink(old, keys.wakeup(old))

    def _end_step(self, key: str, shown: str) -> bytes:
        """Wait until no step of the old name is under way, and return the state it had."""
        is_there = self.client.exists(key)
        if not is_there:
            return b""
        shown = f"{shown} of '{self.old}'"
        state, _ = taken_turn(StepStore(self.client, key, shown).take, shown, self._renew)
        return state
