"""What receivers answered, added up in a real Redis."""

import time

from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import read_receivers, report_receiver
from tests.waiting import allowed


def read(client):
    seconds, _ = client.time()
    return read_receivers(client, seconds * 1_000)


def test_refusals_are_counted_since_a_request_was_last_taken(client):
    report_receiver(client, {401: 7}, {401: 7}, lag_ms=0, events=False)
    report_receiver(client, {200: 40, 401: 2}, {401: 1}, lag_ms=0, events=True)
    assert read(client).since_taken == {401: 1}

    report_receiver(client, {401: 2}, {401: 2}, lag_ms=0, events=False)
    found = read(client)
    assert found.since_taken == {401: 3}
    assert found.answers == {200: 40, 401: 11}
    assert found.taken_ms > 0

    report_receiver(client, {200: 1}, {}, lag_ms=0, events=True)
    assert read(client).since_taken == {}


def test_a_limit_counts_as_raised_once_all_receivers_that_run_have_a_higher_one(client):
    def report(answers, *, max_bytes, lag_ms=0):
        report_receiver(client, answers, {}, lag_ms=lag_ms, events=False, max_bytes=max_bytes)

    report({413: 1}, max_bytes=1_000)
    assert not read(client).is_limit_raised
    (mine,) = (name for name in client.hkeys(keys.RECEIVER) if name.startswith(b"up|"))
    as_mine = client.hget(keys.RECEIVER, mine)
    client.hset(keys.RECEIVER, mapping={"up|other:7": as_mine, "limit:other:7": 1_000})
    report({}, max_bytes=2_000)
    assert not read(client).is_limit_raised

    client.hset(keys.RECEIVER, "limit:other:7", 3_000)
    report({}, max_bytes=2_000)
    assert read(client).is_limit_raised

    report({}, max_bytes=2_000, lag_ms=-1)
    client.hset(keys.RECEIVER, "up|other:7", b"1|0|0|0|")
    assert read(client).is_limit_raised, "it stays so while no receiver is seen"

    report({413: 1}, max_bytes=2_000)
    assert not read(client).is_limit_raised
    assert read(client).answers == {413: 2}
    assert read(client).last_ms[413] > 0


def test_a_receiver_that_ends_takes_its_limit_along(client):
    report_receiver(client, {}, {}, lag_ms=0, events=False, max_bytes=1_000)
    report_receiver(client, {413: 1}, {}, lag_ms=-1, events=False, max_bytes=1_000)

    assert not read(client).is_limit_raised
    assert not [name for name in client.hkeys(keys.RECEIVER) if name.startswith(b"limit:")]


def test_a_receiver_tells_its_clock_and_what_it_was_started_with(client):
    began = time.monotonic() - 60
    report_receiver(client, {}, {}, lag_ms=7, events=False, config="abc", begun_at=began)

    ((_, found),) = read(client).running.items()

    assert (found.lag_ms, found.config) == (7, "abc")
    assert abs(found.clock_ahead_seconds) < allowed(5)
    assert abs(found.seen_ms - found.begun_ms - 60_000) < 1_000 * allowed(5)


def test_it_is_known_since_when_requests_are_refused_and_since_when_one_is_back(client):
    seconds, _ = client.time()
    report_receiver(client, {401: 7}, {401: 7}, lag_ms=0, events=False)
    first = read(client).first_ms[401]
    report_receiver(client, {401: 1}, {401: 1}, lag_ms=0, events=False)

    assert read(client).first_ms == {401: first}
    assert read(client).back_ms <= first

    report_receiver(client, {200: 1}, {}, lag_ms=0, events=True)
    assert read(client).first_ms == {}

    back = read(client).back_ms
    client.hset(keys.RECEIVER, "seen", (seconds - 60) * 1_000)
    report_receiver(client, {}, {}, lag_ms=0, events=False)
    assert read(client).back_ms >= back
    assert read(client).back_ms > (seconds - 60) * 1_000
