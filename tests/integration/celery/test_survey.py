"""What the sweep sees in a real Redis."""

import asyncio
import time

import orjson
import pytest

from segrelay.worker.adapters.redis.gate import RedisGate
from segrelay.worker.adapters.redis.survey import LOCK_MS, RedisSurvey
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import Act
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.triggers import Pause, field_of, set_pause
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.core.verdicts import SlowDown
from tests.integration.celery.nodes import Broker

ACT = Act("pause", "ops")

ONE = PartitionKeys("one", 5)


@pytest.fixture
def settings(configuration):
    return load_settings(configuration)


@pytest.fixture
def survey(broker, settings):
    return RedisSurvey(broker.client, settings)


def due(survey):
    return [sight.call for sight in survey.look() if sight.due]


def test_an_empty_redis_has_nothing_due(survey):
    assert survey.look() == []


def test_work_is_due_and_its_bell_rings_from_then_on(survey, broker):
    broker.put_work(("one", 5))

    first, second = survey.look(), survey.look()

    assert [(s.call, s.due, s.waking) for s in first] == [(WakeUp("live", "one", 5), True, False)]
    assert [s.waking for s in second] == [True]


def test_work_of_the_backfill_lane_alone_goes_to_the_backfill_queue(survey, broker):
    broker.put_work(("one", 5), lane="job.yesterday")

    assert due(survey) == [WakeUp("backfill", "one", 5)]


@pytest.mark.parametrize(
    ("ends_in_seconds", "is_held"), [(10, True), (-1, False)], ids=["held", "lapsed"]
)
def test_a_partition_is_due_unless_a_lease_holds_it(survey, broker, ends_in_seconds, is_held):
    broker.put_work(("one", 5))
    seconds, _ = broker.client.time()
    lease = {"token": "t", "until": (seconds + ends_in_seconds) * 1000}
    broker.client.hset(ONE.lease, mapping=lease)

    (sight,) = survey.look()

    assert (sight.due, sight.held) == (not is_held, is_held)


def test_a_clock_that_was_set_back_keeps_no_partition_held(survey, broker):
    broker.put_work(("one", 5))
    seconds, _ = broker.client.time()
    lease = {"token": "t", "until": (seconds + 3600) * 1000, "length": 100}
    broker.client.hset(ONE.lease, mapping=lease)

    first = due(survey)
    time.sleep(0.2)

    assert first == []
    assert due(survey) == [WakeUp("live", "one", 5)]


def test_a_clock_that_was_set_back_keeps_nothing_waiting(survey, broker):
    broker.put_work(("one", 5))
    seconds, _ = broker.client.time()
    ahead_ms = (seconds + 3600) * 1000
    (stream,) = broker.client.smembers(ONE.streams)
    trigger = stream.decode().partition("|")[2]
    broker.client.hset(ONE.retry, trigger, orjson.dumps([3, ahead_ms, 0]))
    broker.client.hset(ONE.holds, stream, f"{ahead_ms}-0 {ahead_ms}")

    assert due(survey) == [WakeUp("live", "one", 5)]


def test_a_clock_that_was_set_back_lets_somebody_sweep(survey, broker):
    survey.may_sweep()
    (lock,) = broker.client.keys("*sweep*")
    broker.client.hincrby(lock, "until", 3_600_000)

    assert not survey.may_sweep()
    assert int(broker.client.hget(lock, "until")) - int(time.time() * 1_000) <= LOCK_MS


@pytest.mark.parametrize(("kind", "name"), [("destination", "one"), ("trigger", "of-one")])
def test_what_a_person_paused_is_not_due(survey, broker, kind, name):
    broker.put_work(("one", 5), ("two", 5))
    set_pause(broker.client, field_of(kind, name), Pause(), ACT)

    assert due(survey) == [WakeUp("live", "two", 5)]


def test_a_paused_job_is_not_due_and_others_beside_it_are(survey, broker):
    broker.put_work(("one", 5), lane="job.yesterday")
    broker.put_work(("two", 5), lane="job.yesterday")
    broker.put_work(("two", 5), lane="job.today")
    set_pause(broker.client, field_of("job", "yesterday"), Pause(), ACT)

    first = due(survey)
    set_pause(broker.client, field_of("job", "today"), Pause(), ACT)

    assert (first, due(survey)) == ([WakeUp("backfill", "two", 5)], [])


def test_triggers_and_destinations_that_the_configuration_lacks_are_left_alone(survey, broker):
    broker.put_work(("gone", 5))
    broker.client.xadd(ONE.stream("live|gone"), {"h": "", "p": ""})
    broker.client.sadd(ONE.streams, "live|gone")

    assert due(survey) == []


def test_a_trigger_that_this_node_cannot_work_on_is_not_due(broker, settings):
    broker.put_work(("one", 5))

    assert due(RedisSurvey(broker.client, settings, stopped=lambda: {"of-one"})) == []


def test_what_stands_behind_a_closed_gate_is_not_due(survey, broker, settings, redis_url):
    # One gate stands before both: they have host and authorization in common.
    broker.put_work(("one", 5), ("two", 5))
    asyncio.run(close_gate(redis_url, settings.destinations["one"]))

    assert due(survey) == []


async def close_gate(url, destination):
    async with connect_async(url) as client:
        gate = RedisGate(client, destination, None)
        booked = await gate.book(kind="live", triggers=["of-one"], horizon_seconds=1.0)
        await gate.report(booked, SlowDown(retry_after_seconds=60.0), delivered={})


def test_one_of_all_workers_sweeps_at_a_time(broker, settings, redis_url):
    other = Broker(redis_url)

    turns = [RedisSurvey(client, settings).may_sweep() for client in (broker.client, other.client)]

    other.client.close()
    assert turns == [True, False]
