"""`segrelay status` as a person calls it."""

import orjson
import pytest

from ops.cli.main import app
from tests.integration.ops.relay import EXIT, payload
from worker.adapters.presence import RedisPresence
from worker.contract.pauses import Pause, set_pause

KINDS = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


def numbers(document):
    return tuple(document[kind] for kind in KINDS)


def test_nothing_has_happened_yet(call):
    document = orjson.loads(call(app, "status", "--json").stdout)

    assert numbers(document) == (0, 0, 0, 0, 0, 0)
    assert set(document["triggers"]) == {"vip-enter", "vip-exit"}
    assert document["destinations"]["insider"]["state"] == "ok"
    assert document["oldest_waiting_seconds"] is None


def test_every_delivery_is_in_exactly_one_count(call, relay, sandbox):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(
        payload("ann@example.com", status="fine"),
        payload("ann@example.com", status="fine"),
        payload("ben@example.com", status="poisoned"),
    )
    relay.drain()
    relay.publish(payload("cleo@example.com", direction="exit"))

    document = orjson.loads(call(app, "status", "--json").stdout)

    assert numbers(document) == (4, 1, 1, 1, 0, 1)
    assert document["skipped_by_reason"] == {"duplicate": 1}
    assert document["dead_by_reason"] == {"refused": 1}
    assert numbers(document["triggers"]["vip-enter"]) == (3, 1, 1, 1, 0, 0)
    assert numbers(document["triggers"]["vip-exit"]) == (1, 0, 0, 0, 0, 1)
    assert 0 <= document["oldest_waiting_seconds"] < 60
    assert document["requests"] >= 1
    assert document["open_notes"] == 0


def test_a_job_has_counts_of_its_own(call, relay):
    relay.publish(payload("ann@example.com", status="fine"), job="load")
    relay.publish(payload("ben@example.com", status="fine"))

    document = orjson.loads(call(app, "status", "--json").stdout)

    assert numbers(document["jobs"]["load"]) == (1, 0, 0, 0, 0, 1)


def test_what_the_configuration_forgot_is_counted_and_named(call, relay):
    relay.publish(payload("ann@example.com", direction="exit"))
    relay.configure()

    document = orjson.loads(call(app, "status", "--json").stdout)
    told = call(app, "status").stdout

    assert document["orphaned"] == 1
    assert document["orphans"] == {"vip-exit": 1}
    assert document["triggers"]["vip-exit"]["state"] == "orphaned"
    assert document["waiting"] == 1
    assert "vip-exit 1" in told


def test_a_pause_shows_with_its_reason(call, relay):
    set_pause(relay.client, "destination", "insider", Pause("maintenance", "ops"))
    set_pause(relay.client, "trigger", "vip-exit", Pause("too many", "ops"))

    document = orjson.loads(call(app, "status", "--json").stdout)

    assert document["destinations"]["insider"]["state"] == "paused"
    assert document["destinations"]["insider"]["reason"] == "maintenance"
    assert document["triggers"]["vip-exit"]["state"] == "paused"


def test_a_person_reads_the_sum_in_one_line(call, relay):
    relay.publish(payload("ann@example.com", status="fine"))

    assert (
        "accepted 1 = delivered 0 + skipped 0 + dead 0 + discarded 0 + waiting 1"
        in call(app, "status").stdout
    )


@pytest.mark.parametrize("more", ["", EXIT])
def test_a_refused_credential_shows_as_paused(relay, sandbox, more):
    relay.configure(more)
    sandbox.settings(credentials_status=401)
    relay.publish(payload("ann@example.com", status="fine"))
    relay.drain()

    found = relay.status()

    assert found["destinations"]["insider"]["state"] == "paused"
    assert found["destinations"]["insider"]["reason"] == "access_refused"
    assert found["waiting"] == 1


def appear(relay, config, stopped=()):
    RedisPresence(relay.client, config, stopped=lambda: stopped, clock=lambda: 1.0).tell()


def test_a_process_with_an_older_configuration_is_named(call, relay):
    appear(relay, "older")

    (found,) = orjson.loads(call(app, "status", "--json").stdout)["processes"]

    assert (found["kind"], found["config"], found["current"]) == ("worker", "older", False)
    assert f"{found['host']}:{found['pid']}; restart" in call(app, "status").stdout


def test_a_process_with_this_configuration_needs_no_word(call, relay):
    appear(relay, relay.settings.fingerprint)

    (found,) = orjson.loads(call(app, "status", "--json").stdout)["processes"]

    assert found["current"]
    assert "restart" not in call(app, "status").stdout


def test_what_waits_for_nobody_is_told(call, relay):
    quiet = call(app, "status").stdout
    relay.publish(payload("ann@example.com", status="fine"))

    assert "no worker" not in quiet
    assert "no worker has been seen" in call(app, "status").stdout


def test_a_trigger_that_a_worker_cannot_work_on_is_not_called_ok(call, relay):
    appear(relay, relay.settings.fingerprint, stopped=("vip-enter",))

    document = orjson.loads(call(app, "status", "--json").stdout)

    assert document["triggers"]["vip-enter"]["state"] == "stopped"
    assert document["triggers"]["vip-exit"]["state"] == "ok"
