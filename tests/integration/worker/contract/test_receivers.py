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


def test_what_happened_in_the_last_hour_and_ever_is_told_by_status(client):
    report_receiver(client, {413: 1}, {}, lag_ms=0, events=False)
    report_receiver(client, {413: 1, 200: 2}, {}, lag_ms=-1, events=False)

    found = read(client)
    later = read_receivers(client, found.seen_ms + 5_000_000)
    assert found.answers == found.ever == later.ever == {413: 2, 200: 2}
    assert found.last_ms.keys() == {413, 200}
    assert (later.answers, found.running) == ({}, {})


def test_a_receiver_tells_its_clock_and_what_it_was_started_with(client):
    began = time.monotonic() - 60
    report_receiver(client, {}, {}, lag_ms=7, events=False, config="abc", begun_at=began)

    ((_, found),) = read(client).running.items()

    assert (found.lag_ms, found.config) == (7, "abc")
    assert abs(found.clock_ahead_seconds) < allowed(5)
    assert abs(found.seen_ms - found.begun_ms - 60_000) < 1_000 * allowed(5)


def test_it_is_known_since_when_one_is_back(client):
    seconds, _ = client.time()
    report_receiver(client, {200: 1}, {}, lag_ms=0, events=True)

    back = read(client).back_ms
    client.hset(keys.RECEIVER, "seen", (seconds - 60) * 1_000)
    report_receiver(client, {}, {}, lag_ms=0, events=False)
    assert read(client).back_ms >= back
    assert read(client).back_ms > (seconds - 60) * 1_000
