"""What receivers answered, added up in a real Redis."""

from contextlib import closing

import pytest

from worker.contract.processes.receivers import read_receivers, report_receiver
from worker.contract.redis.connection import connect


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as found:
        yield found


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
