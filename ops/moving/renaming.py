"""Renaming a destination: everything that Redis holds under the old name goes to the new one.

The leases of the old destination are taken for good, so that no worker that still knows it drains
it. Those of the new one are held until all is there: nothing is delivered under the new name that
the ledger under the old one knows better. Whatever interrupts it, running it again goes on.
"""

from __future__ import annotations

import math
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.moving.carrying import STEP, Carrier, digest_in, in_parts
from ops.moving.held import FOR_EVER_MS, RENAMED, HeldLease
from ops.state.partitions import partition_count
from producer.steps import StepBook
from producer.sync.book import SyncBook
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_keys
from worker.contract.settings import Settings
from worker.contract.triggers.pauses import DESTINATION, field_of
from worker.errors import OperationsMustAct

_RENEWED_SECONDS: Final = 5.0
_TOLD_SECONDS: Final = 2.0
_LOCK_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2
_STATE: Final = "state"


@dataclass(slots=True)
class Carried:
    """Counts of profiles, deliveries and letters that were moved to the new name."""

    profiles: int = 0
    deliveries: int = 0
    letters: int = 0


@dataclass(slots=True)
class Renaming:
    """Moves everything of a destination to another name.

    Args:
        old: A name that the configuration does not have.
        new: One that it has.
        tell: A callback that takes the counts so far, now and then.
    """

    client: Redis
    settings: Settings
    old: str
    new: str
    tell: Callable[[Carried], None] = lambda _: None
    carried: Carried = field(default_factory=Carried)
    _carriers: list[Carrier] = field(default_factory=list)
    _renewed_at: float = -math.inf
    _told_at: float = field(default_factory=time.monotonic)

    def run(self) -> Carried:
        """Move everything, and return the counts.

        Raises:
            OperationsMustAct: A worker goes on draining one of them, or a step of a sync goes on.
            RedisUnavailable: What is done stays done.
        """
        retention_ms = round(1000 * self.settings.delivery.ledger_retention_seconds)
        owner = f"{socket.gethostname()}:destination-rename"
        for number in range(partition_count(self.client, self.settings)):
            old, new = PartitionKeys(self.old, number), PartitionKeys(self.new, number)
            kept = HeldLease(
                self.client, old, owner, token=RENAMED + self.new, length_ms=FOR_EVER_MS
            )
            taken = HeldLease(self.client, new, owner, takes=RENAMED)
            self._carriers.append(Carrier(self.client, kept, taken, retention_ms))
        try:
            self._hold_all()
            self._mark()
            self._carry()
        finally:
            for carrier in self._carriers:
                carrier.new.let_go()
        return self.carried

    def _hold_all(self) -> None:
        for carrier in self._carriers:
            carrier.old.hold()
        self._renew()

    def _renew(self) -> None:
        """Renew the leases of the new destination if it is time."""
        while time.monotonic() > self._renewed_at + _RENEWED_SECONDS:
            self._renewed_at = time.monotonic()
            for carrier in self._carriers:
                carrier.new.hold()

    def _mark(self) -> None:
        """Write down the new name, and give it the pause of the old one."""
        paused, now_paused = field_of(DESTINATION, self.old), field_of(DESTINATION, self.new)
        with redis_errors():
            pause: Any = self.client.hget(keys.PAUSED, paused)
            pipe = self.client.pipeline(transaction=False)
            pipe.sadd(keys.DESTINATIONS, self.old, self.new)
            pipe.hdel(keys.MOVED, self.new)
            pipe.hset(keys.MOVED, self.old, self.new)
            if pause:
                pipe.hsetnx(keys.PAUSED, now_paused, pause)
                pipe.hdel(keys.PAUSED, paused)
            pipe.execute()

    def _carry(self) -> None:
        self._carry_ledgers()
        self._carry_named_parts()
        for carrier in self._carriers:
            self._step()
            self._carry_partition(carrier)
        self._carry_syncs()
        self._carry_responses()
        for carrier in self._carriers:
            with redis_errors():
                self.client.unlink(carrier.new.place.carried(self.old))

    def _step(self) -> None:
        if time.monotonic() > self._told_at + _TOLD_SECONDS:
            self._told_at = time.monotonic()
            self.tell(self.carried)
        self._renew()

    def _scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield keys of the old destination."""
        return scan_keys(self.client, [each.old.place for each in self._carriers], pattern)

    def _carry_ledgers(self) -> None:
        """Merge all ledgers first: they decide about every later delivery."""
        for found in self._scan("l*"):
            for number, names in self._by_partition(found).items():
                carrier = self._carriers[number]
                digests = [d for name in names if (d := digest_in(name, carrier.old.place))]
                for part in in_parts(digests, STEP):
                    self._step()
                    carrier.merge_ledgers(part)
                    with redis_errors():
                        self.client.unlink(*map(carrier.old.place.ledger, part))
                    self.carried.profiles += len(part)

    def _by_partition(self, names: list[bytes]) -> dict[int, list[bytes]]:
        found: defaultdict[int, list[bytes]] = defaultdict(list)
        for name in names:
            number = name[len(self.old) + 2 :].partition(b"}")[0]
            if number.isdigit() and int(number) < len(self._carriers):
                found[int(number)].append(name)
        return found

    def _carry_named_parts(self) -> None:
        """Move the members of syncs and the positions of sources."""
        for pattern in ("sync:*", "jobs:*"):
            for found in self._scan(pattern):
                for number, names in self._by_partition(found).items():
                    carrier = self._carriers[number]
                    old, new = carrier.places
                    for name in names:
                        self._step()
                        key = name.decode()
                        target = new.tag + key.removeprefix(old.tag)
                        carry = carrier.hash if pattern == "sync:*" else carrier.positions
                        carry(key, target)

    def _carry_partition(self, carrier: Carrier) -> None:
        old, new = carrier.places
        for part in ("notes", "open", "retry", "synctokens", "who", "forwards", "lettersleaving"):
            carrier.hash(getattr(old, part), getattr(new, part))
        carrier.members("reached")
        carrier.positions(old.jobs, new.jobs)
        for part, one_field in (("history", "e"), ("responses", "r")):
            carrier.log(part, one_field)
        self.carried.letters += carrier.letters()
        with redis_errors():
            names: Any = self.client.smembers(old.streams)
        for name in sorted(names):
            self._step()
            self.carried.deliveries += carrier.stream(name.decode())
        carrier.counts()

    def _carry_syncs(self) -> None:
        """Move the members that syncs know to the new name."""
        for name in self.settings.sync:
            book = SyncBook(self.client, name, len(self._carriers))
            if not book.peek().names(self.old):
                continue
            run, _ = self._taken(book.take, f"sync '{name}'")
            run.rename_destination(self.old, self.new)
            book.save(run, ends=True)

    def _carry_responses(self) -> None:
        """Move the positions up to which responses have been sent."""
        old, new = keys.responses(self.old), keys.responses(self.new)
        if not self.client.exists(old):
            return
        book = StepBook(self.client, old, keys.responses_bell(self.old), f"of '{self.old}'")
        self._taken(book.take, f"the responses of '{self.old}'")
        with redis_errors():
            state: Any = self.client.hget(old, _STATE)
            if state:
                self.client.hsetnx(new, _STATE, state)
            self.client.unlink(old, keys.responses_bell(self.old))

    def _taken(self, take: Callable[[], Any], shown: str) -> Any:
        ends_at = time.monotonic() + _LOCK_SECONDS
        while (taken := take()) is None:
            if time.monotonic() > ends_at:
                raise OperationsMustAct(f"A step of {shown} does not end; run this again.")
            self._renew()
            time.sleep(_LOOK_SECONDS)
        return taken
