"""What the sweep sees in a real Redis."""

import time
from functools import partial

import orjson
import pytest

from segrelay.worker.adapters.redis.survey import LOCK_MS, RedisSurvey
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import Act
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.triggers import Pause, field_of, set_pause
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.core.verdicts import SlowDown
from tests.integration.gate.test_redis_gate import booked, with_gate
from tests.waiting import until

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


def test_work_is_due_and_its_bell_rings_from_then_on(survey, broker):
    assert survey.look() == []
    broker.put_work(("one", 5))

    first = survey.look()

    assert [(s.call, s.due, s.waking) for s in first] == [(WakeUp("live", "one", 5), True, False)]
    until(lambda: [s.waking for s in survey.look()] == [True])


def test_work_of_the_backfill_lane_alone_goes_to_the_backfill_queue(survey, broker):
    broker.put_work(("one", 5), lane="job.yesterday")

    assert due(survey) == [WakeUp("backfill", "one", 5)]


def test_a_partition_is_due_unless_a_lease_holds_it_and_the_clock_may_be_set_back(survey, broker):
    broker.put_work(("one", 5))
    seconds, _ = broker.client.time()
    for ends_in, length, is_held in ((10, 60_000, True), (-1, 100, False), (3_600, 100, True)):
        lease = {"token": "t", "until": (seconds + ends_in) * 1000, "length": length}
        broker.client.hset(ONE.lease, mapping=lease)

        (sight,) = survey.look()

        assert (sight.due, sight.held) == (not is_held, is_held), ends_in

    assert until(partial(due, survey)) == [WakeUp("live", "one", 5)]


def test_a_clock_that_was_set_back_keeps_nothing_waiting(survey, broker):
    broker.put_work(("one", 5))
    seconds, _ = broker.client.time()
    ahead_ms = (seconds + 3600) * 1000
    (stream,) = broker.client.smembers(ONE.streams)
    trigger = stream.decode().partition("|")[2]
    broker.client.hset(ONE.retry, trigger, orjson.dumps([3, ahead_ms, 0]))
    broker.client.hset(ONE.holds, stream, f"{ahead_ms}-0 {ahead_ms}")

    assert due(survey) == [WakeUp("live", "one", 5)]


def test_one_of_all_workers_sweeps_at_a_time_and_the_clock_may_be_set_back(survey, broker):
    until(lambda: [survey.may_sweep(), survey.may_sweep()] == [True, False])
    (lock,) = broker.client.keys("*sweep*")
    broker.client.hincrby(lock, "until", 3_600_000)

    assert not survey.may_sweep()
    assert int(broker.client.hget(lock, "until")) - int(time.time() * 1_000) <= LOCK_MS
    assert 0 < broker.client.pttl(lock) <= LOCK_MS + 60_000, "one of each configuration would stay"


@pytest.mark.parametrize(("kind", "name"), [("destination", "one"), ("trigger", "of-one")])
def test_what_a_person_paused_or_this_node_cannot_work_on_is_not_due(
    survey, broker, settings, kind, name
):
    broker.put_work(("one", 5), ("two", 5))
    set_pause(broker.client, field_of(kind, name), Pause(), ACT)

    assert due(survey) == [WakeUp("live", "two", 5)]
    assert due(RedisSurvey(broker.client, settings, stopped=lambda: {"of-two"})) == []


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


def test_what_stands_behind_a_closed_gate_is_not_due(survey, broker, settings, redis_url):
    # One gate stands before both: they have host and authorization in common.
    broker.put_work(("one", 5), ("two", 5))

    async def close(gate):
        booked_time = await booked(gate, triggers=["of-one"])
        await gate.report(booked_time, SlowDown(retry_after_seconds=60.0), delivered={})

    with_gate(redis_url, close, settings.destinations["one"])

    assert due(survey) == []
