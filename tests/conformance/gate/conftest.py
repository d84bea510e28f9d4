"""A gate in Redis, on a clock that the test moves."""

import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from segrelay.worker.adapters.redis.gate import RedisGate, read_state
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Authorization
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.core.gate import (
    MICROSECONDS,
    WHOLE,
    Closed,
    GateStatus,
    Open,
    SendTime,
)
from segrelay.worker.core.verdicts import Accepted, Verdict
from tests.conformance.gates import gate_of
from tests.simulation.virtual_redis import AtOnce, VirtualClient, at_once

START_US = 1_764_000_000_123_456


def access_with(credentials: str) -> Authorization:
    headers = {"X-REQUEST-TOKEN": Secret("literal", credentials or None)}
    return Authorization(name="insider", label="Insider", headers=headers)


class Bench:
    """A gate with what a test does to it, in short words."""

    numbers = itertools.count()

    def __init__(self, client: Redis) -> None:
        self.now_us = START_US
        self.client = VirtualClient.beside(client, lambda: self.now_us)
        self.host = f"host-{next(self.numbers)}"
        self.gate = self.gate_with()
        self._key = keys.gate(self.gate.gate_id)

    def gate_with(self, rate: float = 600.0, credentials: str = "") -> RedisGate:
        return gate_of(AtOnce(self.client), self.host, rate, access_with(credentials))

    def run(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return at_once(waiting)

    def fields(self) -> dict[str, str]:
        """Return the record of the gate as Redis keeps it; `_gate.lua` says what is in it."""
        stored = self.client.hgetall(self._key)
        return {name.decode(): text.decode() for name, text in stored.items()}

    def status(self, configured_per_minute: float = 0.0) -> GateStatus:
        return read_state(
            self.client, self.gate.gate_id, configured_per_minute=configured_per_minute
        )

    def put(self, fields: dict[str, Any]) -> None:
        if fields:
            self.client.hset(self._key, mapping=fields)

    @property
    def factor(self) -> int:
        """What is left of the rate by now, in parts per million."""
        return round(self.status().factor * WHOLE)

    @property
    def now_ms(self) -> float:
        return self.now_us / 1000

    def pass_seconds(self, seconds: float) -> None:
        self.now_us += round(seconds * MICROSECONDS)

    def book(
        self,
        *,
        trigger: str | tuple[str, ...] = "vip",
        kind: str = "live",
        horizon_seconds: float = 1.0,
        gate: RedisGate | None = None,
    ) -> SendTime | Closed:
        triggers = (trigger,) if isinstance(trigger, str) else trigger
        booking = (gate or self.gate).book(
            kind=kind, triggers=triggers, horizon_seconds=horizon_seconds
        )
        return self.run(booking)

    def look(self, *triggers: str, gate: RedisGate | None = None) -> dict[str, Open | Closed]:
        return self.run((gate or self.gate).look(triggers))

    def report(self, send_time: SendTime | Closed, verdict: Verdict, **more: Any) -> GateStatus:
        gate = more.pop("gate", None) or self.gate
        delivered = more.pop("delivered", int(isinstance(verdict, Accepted)))
        assert isinstance(send_time, SendTime), send_time
        made = dict.fromkeys(send_time.successes, delivered)
        self.run(gate.report(send_time, verdict, delivered=made, **more))
        return self.status()

    def send(
        self, verdict: Verdict, *, trigger: str | tuple[str, ...] = "vip", **more: Any
    ) -> GateStatus:
        """Book when there is a send time again, and report."""
        send_time = self.book(trigger=trigger, gate=more.get("gate"))
        if isinstance(send_time, Closed):
            assert send_time.until_ms is not None, send_time
            self.pass_seconds((send_time.until_ms - self.now_ms) / 1000)
            send_time = self.book(trigger=trigger, gate=more.get("gate"))
        assert isinstance(send_time, SendTime), send_time
        self.pass_seconds(max(0.0, send_time.at_ms - self.now_ms) / 1000)
        return self.report(send_time, verdict, **more)


@pytest.fixture
def bench(redis: Redis) -> Bench:
    return Bench(redis)
