"""The gate on a real Valkey and its clock, from several connections."""

import asyncio
from itertools import chain

import pytest
from structlog.testing import capture_logs

from segrelay.worker.adapters.redis.gate import RedisGate, read_state, resume_gate
from segrelay.worker.contract.redis.connection import connect, connect_async
from segrelay.worker.contract.settings import Authorization, Destination
from segrelay.worker.contract.settings.http import fingerprint_of
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.core.gate import SendTime
from segrelay.worker.core.verdicts import Accepted, AccessRefused, Failed
from tests.full import full


def destination(rate="6000/min"):
    return Destination(name="insider", api="insider", base_url="https://x.example.com", rate=rate)


GATE = RedisGate(None, destination(), None).gate_id


def with_gate(redis_url, act, to=None):
    """Do something with the gate of a destination, and return what came of it."""

    async def run():
        async with connect_async(redis_url) as client:
            return await act(RedisGate(client, to or destination(), None))

    return asyncio.run(run())


async def booked(gate, **more):
    return await gate.book(**{"kind": "live", "triggers": ["vip"], "horizon_seconds": 1.0} | more)


def test_several_connections_share_one_limit(redis_url):
    async def run():
        clients = [connect_async(redis_url) for _ in range(4)]
        gates = [RedisGate(one, destination("600/min"), None) for one in clients]

        async def worker(gate):
            return [await booked(gate, horizon_seconds=600.0) for _ in range(100)]

        send_times = chain(*await asyncio.gather(*map(worker, gates)))
        for client in clients:
            await client.aclose()
        return sorted(send_time.at_ms for send_time in send_times)

    at = asyncio.run(run())

    regular = [at[i + 1] - at[i] for i in range(100, 399)]
    assert min(regular) > 100.0
    assert at[-1] - at[0] > (400 - 1 - 6) * 61_000 / 594 - 30
    assert at[-1] - at[100] == pytest.approx(299 * 61_000 / 594, abs=30)


def test_it_works_on_a_full_redis(redis_url):
    with connect(redis_url) as client, full(client):
        send_time = with_gate(redis_url, booked)

    assert isinstance(send_time, SendTime)


def test_a_fingerprint_is_too_short_to_be_credentials_and_says_where_there_are_none():
    headers = {"X-REQUEST-TOKEN": Secret("literal", "t0ken")}

    assert len(fingerprint_of(Authorization(name="insider", headers=headers))) == 8
    assert fingerprint_of(None) == "none"


def test_a_destination_that_breaks_and_one_that_recovers_are_one_warning_each(redis_url):
    async def act(gate):
        for number in range(12):
            send_time = await booked(gate)
            if isinstance(send_time, SendTime):
                await gate.report(send_time, Failed("503"), delivered={}, batch=str(number))
        while not isinstance(send_time := await booked(gate), SendTime):  # noqa: ASYNC110 - Redis has the clock
            await asyncio.sleep(0.1)
        await gate.report(send_time, Accepted(), delivered={"vip": 1})
        await gate.report(await booked(gate), Accepted(), delivered={"vip": 1})

    with capture_logs() as said:
        with_gate(redis_url, act)

    told = [(one["event"], one["destination"]) for one in said if one["log_level"] == "warning"]
    assert told == [("destination.broken", "insider"), ("destination.recovered", "insider")]


def test_a_destination_is_paused_since_it_was_paused_first_whatever_resumption_failed(redis_url):
    async def refuse(gate):
        await gate.report(await booked(gate), AccessRefused("Access Denied"), delivered={})

    async def answer(gate):
        await gate.report(await booked(gate), Accepted(), delivered={"vip": 1})

    def paused_since():
        resume_gate(client, GATE)
        with_gate(redis_url, refuse)
        return read_state(client, GATE).since_ms

    with connect(redis_url) as client:
        first, again = paused_since(), paused_since()
        resume_gate(client, GATE)
        open_since = read_state(client, GATE).since_ms
        with_gate(redis_url, answer)
        anew = paused_since()

    assert (again, open_since) == (first, 0)
    assert anew > first
