"""Gates in Redis and in a Cluster, on a clock that the test moves."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.gate import RedisGate, forget_rates, read_state
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect, connect_async
from segrelay.worker.contract.settings import Authorization, Destination
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
from tests.conformance.clocked_redis import GATES_CLOCK
from tests.topologies import LocalCluster

START_US = 1_764_000_000_123_456
CLOCK = "clock"
"""Behind the key of the gate, and so in its send time."""


def fingerprint(credentials: str) -> str:
    return RedisGate(None, *_asked(600.0, credentials)).fingerprint


def _asked(rate: float, credentials: str, name: str = "one") -> tuple[Destination, Authorization]:
    destination = Destination(
        name="insider",
        api="insider",
        base_url=f"https://{name}.example.com",
        authorization="insider",
        rate=f"{rate}/min" if rate == int(rate) else f"{rate * 60:.0f}/h",
    )
    headers = {"X-REQUEST-TOKEN": Secret("literal", credentials or None)}
    return destination, Authorization(name="insider", label="Insider", headers=headers)


class World:
    """All gates of one host and authorization, by the real scripts but for Redis' time."""

    numbers = itertools.count()

    def __init__(self, runner: asyncio.Runner, client: Any, commands: Any) -> None:
        self._runner = runner
        self._client = client
        self._commands = commands
        self._name = f"host-{next(self.numbers)}"
        self._key = keys.gate(self.gate().gate_id)
        self.set_clock(START_US)

    def gate(self, rate: float = 600.0, credentials: str = "") -> RedisGate:
        return RedisGate(self._client, *_asked(rate, credentials, self._name), script=_on_our_clock)

    def run(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(waiting)

    def set_clock(self, now_us: int) -> None:
        self._runner.run(self._client.set(self._key + CLOCK, now_us))

    def resume_trigger(self, trigger: str) -> None:
        self._runner.run(self.gate().resume(trigger))

    def forget_rates(self) -> None:
        """Do what a worker does when it starts."""
        forget_rates(self._commands, [_asked(600.0, "", self._name)[0]])

    def fields(self) -> dict[str, str]:
        """Return the record of the gate as Redis keeps it; `_gate.lua` says what is in it."""
        stored = self._runner.run(self._client.hgetall(self._key))
        return {name.decode(): text.decode() for name, text in stored.items()}

    def status(self, configured_per_minute: float = 0.0) -> GateStatus:
        return read_state(
            self._commands,
            self.gate().gate_id,
            configured_per_minute=configured_per_minute,
            script=_on_our_clock,
        )

    def put(self, fields: dict[str, Any]) -> None:
        if fields:
            self._commands.hset(self._key, mapping=fields)


def _on_our_clock(name: str) -> str:
    text = scripts.source(name)
    assert GATES_CLOCK in text
    return text.replace(
        GATES_CLOCK, f"local now = tonumber(redis.call('GET', KEYS[1] .. '{CLOCK}'))"
    )


class Bench:
    """A gate with what a test does to it, in short words."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = world.gate()
        self.now_us = START_US

    @property
    def factor(self) -> int:
        """What is left of the rate by now, in parts per million."""
        return round(self.world.status().factor * WHOLE)

    @property
    def now_ms(self) -> float:
        return self.now_us / 1000

    def pass_seconds(self, seconds: float) -> None:
        self.now_us += round(seconds * MICROSECONDS)
        self.world.set_clock(self.now_us)

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
        return self.world.run(booking)

    def look(self, *triggers: str, gate: RedisGate | None = None) -> dict[str, Open | Closed]:
        return self.world.run((gate or self.gate).look(triggers))

    def report(self, send_time: SendTime | Closed, verdict: Verdict, **more: Any) -> GateStatus:
        gate = more.pop("gate", None) or self.gate
        delivered = more.pop("delivered", int(isinstance(verdict, Accepted)))
        assert isinstance(send_time, SendTime), send_time
        made = dict.fromkeys(send_time.successes, delivered)
        self.world.run(gate.report(send_time, verdict, delivered=made, **more))
        return self.world.status()

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


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def redis_client(runner: asyncio.Runner, redis_url: str) -> Iterator[Any]:
    client = connect_async(redis_url)
    yield client
    runner.run(client.aclose())


@pytest.fixture
def cluster_client(runner: asyncio.Runner, local_cluster: LocalCluster) -> Iterator[Any]:
    client = connect_async(local_cluster.url)
    yield client
    runner.run(client.aclose())


@pytest.fixture
def redis_commands(redis_url: str) -> Iterator[Any]:
    """A client as commands have one."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def cluster_commands(local_cluster: LocalCluster) -> Iterator[Any]:
    with connect(local_cluster.url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["redis", pytest.param("cluster", marks=pytest.mark.nightly)])
def bench(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Bench:
    kinds = (f"{request.param}_client", f"{request.param}_commands")
    return Bench(World(runner, *map(request.getfixturevalue, kinds)))
