"""Builds the adapters, once per process, when it begins; runs drains with them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from segrelay.worker.adapters.jsonnet import ProcessRenderer
from segrelay.worker.adapters.redis.gate import RedisGate
from segrelay.worker.adapters.redis.partition import (
    LeaseKeeper,
    RedisPartition,
    SystemClock,
    ThreadedLease,
    boottime_seconds,
)
from segrelay.worker.adapters.redis.shared_keys import (
    ASK_NAMES,
    DeadLetterLimit,
    RedisNumbers,
    RedisStreaks,
    SharedKeys,
    tell_newest,
)
from segrelay.worker.adapters.sender import (
    AuthorizedSender,
    Granted,
    HttpSender,
    ProcessToken,
    read_grant,
    token_request,
)
from segrelay.worker.batch.batch import Responses, ResponseStream
from segrelay.worker.batch.partition import (
    BATCH_ENTRIES,
    STOP_GRACE_SECONDS,
    Drain,
    Stop,
    Tally,
)
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import queue_name
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import log_bytes
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.claim import learn_protection, place_of
from segrelay.worker.contract.redis.connection import (
    connect,
    connect_async,
    resolve_broker_url,
    resolve_url,
)
from segrelay.worker.contract.settings import Authorization, Settings
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.gate import LaneKind
from segrelay.worker.core.verdicts import Verdict
from segrelay.worker.destinations.api import Sender
from segrelay.worker.drain import run
from segrelay.worker.errors import RedisMismatch, RedisUnavailable, UsageWrong
from segrelay.worker.node.loading import Upkeep, load

FIRST_DRAINS: Final = 5
"""After this many drains, objects that are still alive count as permanent and are frozen."""
QUEUED_SECONDS: Final = 0.1
"""The seconds for which live calls are queued, as a drain sees it, after which it makes room.

A call that was sent a moment ago is on its way to a process that is free.
"""
_ASKING_SECONDS: Final = 5.0
"""Seconds within which the endpoint for tokens has to answer."""
LOG: Final = structlog.get_logger()


class Runtime:
    """Everything of a process that outlives a drain: clients, templates, one event loop.

    Args:
        settings: The configuration.
        loaded: The triggers that were loaded before this process was forked; None = they are loaded
            now.

    Attributes:
        is_worker: True if this process only drains, so that it collects its garbage after each
            drain.

    Raises:
        RedisUnavailable: The embedded Redis can't be started.
    """

    def __init__(self, settings: Settings, loaded: Upkeep | None = None) -> None:
        url = resolve_url(settings.redis)
        self.settings = settings
        self.is_worker = loaded is not None
        loaded = loaded or load(settings, lambda question: question())
        self.upkeep = replace(
            loaded,
            settings=settings,
            triggers={name: dict(each) for name, each in loaded.triggers.items()},
            told=dict(loaded.told),
            refused={},
        )
        # All that is asynchronous lives in the loop of this runner.
        self.runner = asyncio.Runner()
        self.runner.get_loop()
        self.client = connect_async(url, replicas=settings.redis.replicas)
        self.broker = connect_async(resolve_broker_url(settings.redis))
        self.lease_keeper = LeaseKeeper(connect(url, timeout_seconds=1.0))
        self.renderer = ProcessRenderer(loaded.renderer)
        self.numbers = RedisNumbers(self.client)
        self.sender = _sender(settings)
        kept = settings.delivery.dead_letters_kept
        self.dead_letter_limit = DeadLetterLimit(self.client, settings=settings.redis, kept=kept)
        self.shared_keys = SharedKeys(self.client, settings)
        self.responses = _responses(settings)
        self.gates = {
            name: RedisGate(self.client, destination, settings.authorization_of(destination))
            for name, destination in settings.destinations.items()
        }
        self.jitter = random.SystemRandom()
        self._first_drains = FIRST_DRAINS

    def drain(
        self,
        destination: str,
        partition: int,
        stop: Stop,
        *,
        live_waits: Callable[[], bool] = lambda: False,
        kinds: tuple[LaneKind, ...] = (LIVE, BACKFILL),
        batch_entries: int = BATCH_ENTRIES,
    ) -> tuple[Tally, str]:
        """Drain one partition for a slice.

        Args:
            destination: A destination's name.
            partition: The number of a partition.
            stop: The signal to stop, set from a signal's handler.
            live_waits: A function that says whether a live call waits in this node for a permit.
            kinds: The kinds of lanes that are drained.
            batch_entries: The largest number of deliveries in a batch.

        Returns:
            What was done, and the queue to wake it on; "" = wake nobody.

        Raises:
            UsageWrong: There is no such destination or partition.
            RedisMismatch: Redis is protected in another way than the configuration says.
        """
        known, partitions = self.settings.destinations, self.settings.redis.partitions
        if destination not in known:
            names = ", ".join(known)
            raise UsageWrong(f"There is no destination `{destination}`; known are: {names}.")
        if not 0 <= partition < partitions:
            last = partitions - 1
            raise UsageWrong(f"There is no partition {partition}: they go from 0 to {last}.")
        self.upkeep.look()
        try:
            prepared = self._prepare(
                PartitionKeys(destination, partition), stop, live_waits, kinds, batch_entries
            )
            tally, queue = self.runner.run(run(self.runner.run(prepared)))
        except RedisMismatch:
            # Another process was the first to claim a Redis that had come back empty.
            before = PROTECTION.secret_id
            stored = self.client.execute_command("GET", keys.PROTECTION)
            learn_protection(self.settings, self.runner.run(stored) or b"")
            if PROTECTION.secret_id == before:
                raise
            tally, queue = Tally(ended="Redis has another protection of people's data"), ""
        finally:
            if self.is_worker:
                gc.collect()
        if tally.requests and self._first_drains > 0 and self.is_worker:
            # It stays for good: no batch is held here. A full collection then takes less than half
            # a millisecond instead of ten.
            self._first_drains -= 1
            gc.freeze()
        return tally, queue

    def connect(self) -> None:
        """Connect to Redis before the first drain needs it; if that fails, the drain reports it.

        It also tells Redis the editions of the triggers: what waits because of an older one becomes
        due.
        """
        self.upkeep.look()  # a process that is forked later inherits what was loaded at the start
        self.lease_keeper.begin()
        with contextlib.suppress(RedisUnavailable):
            self.runner.run(self._live_is_queued())
            for triggers in self.upkeep.triggers.values():
                self.runner.run(tell_newest(self.client, triggers, self.upkeep.told))

    def close(self) -> None:
        """Close all connections, for callers that live longer than this runtime."""
        self.runner.run(self.sender.close())
        self.runner.run(self.client.aclose())
        self.runner.run(self.broker.aclose())
        self.lease_keeper.close()
        self.runner.close()

    async def _prepare(
        self,
        partition_keys: PartitionKeys,
        stop: Stop,
        live_waits_here: Callable[[], bool],
        kinds: tuple[LaneKind, ...],
        batch_entries: int,
    ) -> Drain:
        """Read what stands in the way of a drain, and return the drain."""
        queued_since: float | None = None

        async def live_waits() -> bool:
            nonlocal queued_since
            if live_waits_here():
                return True
            if not await self._live_is_queued():
                queued_since = None
                return False
            queued_since = queued_since or boottime_seconds()
            return boottime_seconds() - queued_since >= QUEUED_SECONDS

        def may_repeat() -> bool:
            grace_ends = stop.told_at_seconds + STOP_GRACE_SECONDS
            return not stop.is_told or boottime_seconds() < grace_ends

        delivery = self.settings.delivery
        destination = self.settings.destinations[partition_keys.destination]
        gate, triggers = self.gates[destination.name], self.upkeep.triggers[destination.name]
        await tell_newest(self.client, triggers, self.upkeep.told)
        standing, looks, is_full = await asyncio.gather(
            self.shared_keys.standing(destination.name),
            gate.look(triggers),
            self.dead_letter_limit.pause_if_full(destination.name),
        )
        if is_full:
            standing = await self.shared_keys.standing(destination.name)
        partition = RedisPartition(
            self.client,
            partition_keys,
            lease_seconds=delivery.lease_seconds,
            retention_seconds=delivery.ledger_retention_seconds,
            late_seconds=delivery.late_seconds,
            owner=f"{socket.gethostname()}:{os.getpid()} {self.settings.fingerprint}",
            address=place_of(destination),
            may_repeat=may_repeat,
            most_bytes=log_bytes(self.settings),
            reads_along=ASK_NAMES if not self.client.is_cluster else (),
        )
        return Drain(
            partition=partition,
            gate=gate,
            sender=self.sender,
            renderer=replace(self.renderer, is_told_to_stop=lambda: stop.is_told),
            numbers=self.numbers,
            streaks=RedisStreaks(self.client, standing.streaks, triggers, may_repeat=may_repeat),
            lease=ThreadedLease(
                self.lease_keeper, partition_keys, partition.token, delivery.lease_seconds
            ),
            triggers=triggers,
            paused=standing.paused,
            looks=looks,
            read_names=lambda: self._names(partition),
            read_wants=lambda: self.shared_keys.wants(destination.name),
            live_waits=live_waits,
            clock=SystemClock(),
            jitter=self.jitter,
            stop=stop,
            responses=self.responses,
            scopes=standing.scopes,
            request_deadline_seconds=delivery.request_deadline_seconds,
            late_seconds=delivery.late_seconds,
            in_flight=delivery.in_flight,
            kinds=kinds,
            batch_entries=batch_entries,
        )

    async def _names(self, partition: RedisPartition) -> None:
        """Learn all numbers, which one server has told together with the lease."""
        if partition.read_along:
            self.numbers.replace(partition.read_along[0])
        else:
            await self.numbers.read()

    async def _live_is_queued(self) -> bool:
        return bool(await self.broker.llen(queue_name(LIVE)))


async def announce(settings: Settings, loaded: Upkeep) -> None:
    """Tell Redis the editions of the loaded triggers as the newest; see `tell_newest`.

    A worker does so before it forks its processes, so that each of them finds it done.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    url = resolve_url(settings.redis)
    async with contextlib.aclosing(connect_async(url, replicas=settings.redis.replicas)) as client:
        for triggers in loaded.triggers.values():
            await tell_newest(client, triggers, loaded.told)


def _responses(settings: Settings) -> Responses:
    streams = {
        trigger.name: ResponseStream(
            trigger.response_stream, trigger.response_headers, trigger.response_fields
        )
        for trigger in settings.triggers.values()
        if trigger.response_stream
    }
    return Responses(streams, settings.delivery.identity)


def _sender(settings: Settings) -> Sender:
    """Return the sender; it gets a token first where an authorization needs one."""
    sender = HttpSender(
        connections=max(16, settings.delivery.in_flight), ipv4_only=settings.delivery.ipv4_only
    )
    tokens = {
        name: ProcessToken(partial(_ask, sender, authorization), boottime_seconds)
        for name, authorization in settings.authorizations.items()
        if authorization.uses_token and authorization.is_set
    }
    return AuthorizedSender(sender, tokens) if tokens else sender


async def _ask(sender: Sender, authorization: Authorization) -> Granted | Verdict:
    answer = await sender.send(token_request(authorization), _ASKING_SECONDS)
    return read_grant(answer, authorization)
