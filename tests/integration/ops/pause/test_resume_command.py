"""`segrelay resume` waits for its first request, and says what came of it."""

import threading
import time
from contextlib import contextmanager

import orjson
import pytest

from segrelay.worker.adapters.redis.survey import RedisPresence
from tests.integration.ops.relay import payload


@contextmanager
def a_worker_that_comes(relay):
    """Drain a moment later, as a worker that was woken."""

    def come():
        time.sleep(0.5)
        relay.drain()

    presence = RedisPresence(relay.client, relay.settings.fingerprint, clock=time.monotonic)
    presence.announce()
    thread = threading.Thread(target=come)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def resume(call):
    def run(*names):
        result = call("resume", *names, "--timeout", "10s", "--json")
        (one,) = orjson.loads(result.stdout)["resumed"]
        return result.exit_code, one["probe"]["outcome"], one["probe"]["message"]

    return run


@pytest.fixture
def refused(relay, sandbox):
    """A destination that has paused itself, since its credentials were refused."""
    sandbox.settings(credentials_status=401)
    relay.deliver(payload("ann@example.com"), payload("ben@example.com"))
    assert relay.status()["destinations"]["insider"]["state"] == "paused"
    return relay


def test_a_first_request_that_is_taken_is_told(refused, sandbox, resume):
    sandbox.settings(credentials_status=0)

    with a_worker_that_comes(refused):
        answer = resume("insider")

    assert answer == (0, "taken", "the first request was taken")


def test_a_first_request_that_is_refused_again_is_told_with_its_cause(refused, resume):
    with a_worker_that_comes(refused):
        code, outcome, message = resume("insider")

    assert (code, outcome) == (1, "failed")
    assert message.startswith("paused again: ")


@pytest.mark.parametrize("status", ["fine", "poisoned"])
def test_what_comes_of_the_first_request_of_a_trigger_is_told(relay, sandbox, call, resume, status):
    call("pause", "vip-enter")
    sandbox.settings(poison="poisoned", poison_status=500)
    relay.publish(payload("ann@example.com", status=status))

    with a_worker_that_comes(relay):
        *answer, message = resume("vip-enter")

    assert answer == ([0, "taken"] if status == "fine" else [1, "failed"])
    assert ("500" in message) == (status == "poisoned")


def test_where_nothing_can_go_nothing_is_waited_for(relay, call, resume):
    call("pause", "vip-enter")
    assert "nothing waits" in resume("vip-enter")[2]

    relay.publish(payload("ann@example.com"))
    call("pause", "vip-enter")
    assert "no worker has been seen" in resume("vip-enter")[2]

    call("pause", "vip-enter", "insider")
    assert "insider is paused" in resume("vip-enter")[2]
