"""Failures of what comes in, as Redis has them, are problems of health."""

import pytest

from segrelay.ops.status.health import read_problems
from segrelay.ops.status.problems import ILL
from segrelay.worker.adapters.redis.survey import RedisProgress
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import read_samples, report_receiver
from segrelay.worker.errors import LyticsRefused
from tests.integration.ops.relay import EXIT, payload

RECEIVES = '[producer.webhook]\nsecret = "a-secret-of-nobody"\nlisten = "127.0.0.1:0"\n'


def ill(relay):
    """Return the ill problems with their messages and commands."""
    found = read_problems(relay.client, relay.settings)
    return {one.name: "\n".join(one.lines) for one in found if one.severity == ILL}


def report(relay, answers, refused):
    report_receiver(relay.client, answers, refused, lag_ms=0, events=True)


def sample(relay):
    relay.client.delete(keys.PROGRESS_LOCK)
    RedisProgress(relay.client, relay.settings).note()


def test_an_assert_that_skips_all_is_a_problem_until_something_is_delivered(relay):
    sample(relay)
    before = relay.shipped("enter.jsonnet")
    relay.template("enter.jsonnet", "assert false : 'not yet'; {}")
    relay.deliver(*[payload(f"p{n}@example.com") for n in range(25)])

    sample(relay)
    told = ill(relay)["assert_skips_all"]

    assert "vip-enter" in told
    assert "skipped all of the 25 events" in told
    assert "→ segrelay template check enter.jsonnet" in told
    relay.template("enter.jsonnet", before)
    relay.deliver(payload("ann@example.com"))
    sample(relay)
    assert "assert_skips_all" not in ill(relay)


def test_a_sample_has_what_was_settled_and_what_waits(relay, sandbox, call):
    sandbox.settings(poison="bad@example.com", poison_status=200)
    relay.template("exit.jsonnet", "assert false : 'no'; {}")
    relay.publish(payload("gus@example.com", audience="gold"), job="other")
    assert call("discard", "--job", "other", "--yes").exit_code == 0
    many = [payload(f"{name}@example.com") for name in ("ann", "ben", "bad")]
    relay.deliver(*many, payload("cid@example.com", direction="exit"), job="load")
    relay.deliver(payload("dan@example.com"))
    relay.publish(payload("eve@example.com"), job="load")
    relay.publish(*(payload(f"{name}@example.com") for name in ("fay", "gil")))

    sample(relay)

    counts = read_samples(relay.client)[0].counts["insider"]
    assert {name: n for name, n in counts.items() if not name.startswith("asked|")} == {
        "settled": 6,
        "requests": relay.status()["requests"],
        "delivered|vip-enter": 3,
        "dead|vip-enter|refused": 1,
        "skipped|vip-exit|asserted": 1,
        "job|load": 4,
        "job|other": 1,
        "waits": 2,
        "waits|load": 1,
    }


def test_what_receivers_refuse_and_what_cannot_be_placed_is_told(relay):
    relay.configure(EXIT + RECEIVES)
    sample(relay)
    relay.publish(*[payload(f"p{n}@example.com", audience="") for n in range(12)])

    report(relay, {401: 5}, {401: 5})
    told = ill(relay)
    assert "12 events" in told["quarantine_grows"]
    assert "changed at one end only" in told["receiver_unauthorized"]
    report(relay, {200: 1, 413: 1}, {413: 1})
    assert "max_bytes" in ill(relay)["receiver_too_large"]
    assert "receiver_unauthorized" not in ill(relay)


def test_a_sync_that_fails_or_waits_for_a_person_is_told(relay_of_a_sync, sandbox):
    relay = relay_of_a_sync
    sandbox.settings(lytics={"error_shares": {"401": 1.0}})
    with pytest.raises(LyticsRefused):
        relay.sync()
    assert "401" in ill(relay)["sync_fails"]
    sandbox.settings(lytics={"error_shares": {}})
    moves = [{"uid": f"u{n:03}", "audience": "vip", "change": "exit"} for n in range(12)]
    sandbox.post("lytics/moves", moves)
    relay.sync()
    assert "→ segrelay sync confirm vip" in ill(relay)["sync_waits"]
