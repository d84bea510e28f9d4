"""A circuit breaker that one trigger has opened is closed for that one, in every output."""

import asyncio

import orjson
import pytest

from segrelay.ops.status.health import problems_of
from segrelay.ops.status.standing import read_standing
from segrelay.worker.adapters.redis.gate import RedisGate
from segrelay.worker.contract.processes import WORKER, Process
from segrelay.worker.contract.redis.connection import connect_async, now_us
from segrelay.worker.core.gate import POLICY
from segrelay.worker.core.verdicts import Accepted, Failed
from tests.integration.ops.relay import payload


@pytest.fixture
def broken(relay, redis_url):
    """Deliveries of two triggers, of which only the entrances fail."""
    relay.publish(payload("ann@example.com"), payload("ben@example.com", direction="exit"))
    destination = relay.settings.destinations["insider"]

    async def go():
        client = connect_async(redis_url)
        gate = RedisGate(client, destination, relay.settings.authorization_of(destination))
        try:
            slot = await booked(gate, "vip-exit")
            await gate.report(slot, Accepted(), delivered={"vip-exit": 1})
            for _ in range(POLICY.failures):
                slot = await booked(gate, "vip-enter")
                await gate.report(slot, Failed("503"), delivered={})
        finally:
            await client.aclose()

    asyncio.run(go())
    return relay


async def booked(gate, trigger):
    return await gate.book(kind="live", triggers=[trigger], horizon_seconds=5.0)


def test_the_other_triggers_go_on_and_neither_they_nor_their_people_wait_for_it(broken, call):
    def detail(email):
        (waiting,) = orjson.loads(call("why", email, "--json").stdout)["waiting"]
        return waiting["detail"]

    found = read_standing(broken.client, broken.settings)
    details = detail("ann@example.com"), detail("ben@example.com")
    worker = Process("one", 7, WORKER, broken.settings.fingerprint, begun_ms=1)
    broken.client.zadd("{segrelay}:processes", {worker.dumps(): now_us(broken.client)})
    operate = broken.settings.operate.model_copy(update={"live_within_seconds": 0.0})
    settings = broken.settings.model_copy(update={"operate": operate})
    problems = problems_of(read_standing(broken.client, settings))

    assert found.destinations["insider"].condition.state == "broken"
    assert found.triggers["vip-enter"].condition.state == "waits"
    assert found.triggers["vip-enter"].condition.reason == "its requests fail: 503"
    assert found.triggers["vip-exit"].condition.state == "ok"
    assert list(found.stops(["vip-exit"])) == [found.idle]
    assert list(found.stops(["vip-enter"])) == [
        "destination insider is broken: 503",
        "trigger vip-enter waits: its requests fail: 503",
        found.idle,
    ]
    assert ["503" in each for each in details] == [True, False]
    named = {(one.name, one.subject) for one in problems}
    assert {("destination_broken", "insider"), ("live_late", "vip-exit")} <= named
    assert ("live_late", "vip-enter") not in named, "late deliveries are a problem of their own"
