"""`segrelay reconcile`: Lytics, the ledger and Insider held against each other."""

from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from segrelay.ops.main import app
from segrelay.sandbox.lytics.account import audience_id
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from tests.integration.ops.relay import BEGUN_AT, EXIT, LYTICS, payload
from tests.integration.producer.redis_contents import entries

NO_DRIFT = {"missing": 0, "stale": 0, "stale_unnamed": 0}


def members(sandbox):
    held = sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
    return {email for email, slugs in held.items() if "vip" in slugs}


def at_lytics(sandbox):
    return {row["email"] for row in sandbox.get("lytics/members", audience="vip")}


def drift(sandbox):
    """Let one join and two leave, of which no event comes."""
    rows = [{"_uid": "u900", "email": "new@example.com", "segments": ["vip"]}]
    sandbox.post("lytics/profiles", rows)
    moves = [{"uid": f"u{n:03}", "audience": "vip", "change": "exit"} for n in (1, 2)]
    sandbox.post("lytics/moves", moves)


@pytest.mark.usefixtures("relay_of_a_sync")
def test_where_nothing_differs_the_exit_code_is_0(call):
    told = call(app, "reconcile", "vip", "--json")

    assert told.exit_code == 0
    assert orjson.loads(told.stdout) == {
        "audience": "vip",
        "source": 12,
        "destinations": [
            {"destination": "insider", "ledger": 12, "both": 12, "changed_since_scan": 0} | NO_DRIFT
        ],
        "repaired": 0,
    }


@pytest.mark.usefixtures("relay_of_a_sync")
def test_who_is_missing_and_who_is_stale_is_told(call, sandbox):
    drift(sandbox)

    told = call(app, "reconcile", "vip", "--json")

    (found,) = orjson.loads(told.stdout)["destinations"]
    assert told.exit_code == 1
    assert (found["both"], found["missing"], found["stale"]) == (10, 1, 2)
    assert "missing" in call(app, "reconcile", "vip").stdout


def test_a_repair_publishes_just_the_difference(relay_of_a_sync, call, sandbox):
    drift(sandbox)

    told = call(app, "reconcile", "vip", "--repair", "--yes", "--json")
    waiting = relay_of_a_sync.status()["waiting"]
    relay_of_a_sync.drain()

    assert (told.exit_code, orjson.loads(told.stdout)["repaired"], waiting) == (0, 3, 3)
    assert members(sandbox) == at_lytics(sandbox)
    assert call(app, "reconcile", "vip").exit_code == 0


def test_what_insider_has_lost_is_found_and_sent_again(relay_of_a_sync, call, sandbox):
    httpx.post(
        f"{sandbox.url}/api/user/v1/attribute/delete",
        headers={"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"},
        json={
            "users": [
                {
                    "identifiers": {"email": "p3@example.com"},
                    "custom": {"partial": {DEFAULT_AUDIENCE_ATTRIBUTE: ["vip"]}},
                }
            ]
        },
    ).raise_for_status()
    assert "p3@example.com" not in members(sandbox)

    found = call(app, "reconcile", "vip", "--insider", "--json")
    repaired = call(app, "reconcile", "vip", "--insider", "--repair", "--yes", "--json")
    relay_of_a_sync.drain()

    (destination,) = orjson.loads(found.stdout)["destinations"]
    assert found.exit_code == 1
    assert destination["insider"] == {"read": 12, "missing": 1, "stale": 0, "unknown": 0}
    assert orjson.loads(repaired.stdout)["repaired"] == 1
    assert members(sandbox) == at_lytics(sandbox)


def test_what_happened_after_the_scan_is_no_drift_and_is_told(relay_of_a_sync, call):
    in_two_minutes = (datetime.now(UTC) - BEGUN_AT) / timedelta(minutes=1) + 2
    relay_of_a_sync.publish(payload("p3@example.com", direction="exit", minute=in_two_minutes))
    relay_of_a_sync.drain()

    told = call(app, "reconcile", "vip", "--repair", "--yes")
    document = orjson.loads(call(app, "reconcile", "vip", "--json").stdout)

    assert document["destinations"] == [
        {"destination": "insider", "ledger": 11, "both": 11, "changed_since_scan": 1} | NO_DRIFT
    ]
    assert (told.exit_code, document["repaired"]) == (0, 0)
    assert "1 people of 'vip' differ, but an event about them is newer than the scan" in told.stderr


@pytest.mark.usefixtures("relay_of_a_sync")
def test_who_is_left_out_of_a_repair_because_a_sync_is_newer_than_the_scan_is_told(call, sandbox):
    drift(sandbox)
    sandbox.settings(lytics={"date_offset_seconds": -120.0})

    told = call(app, "reconcile", "vip", "--repair", "--yes")
    document = orjson.loads(call(app, "reconcile", "vip", "--json").stdout)

    assert document["destinations"][0]["changed_since_scan"] == 2
    assert "1 event published" in told.stdout
    assert "2 people of 'vip' differ" in told.stderr


def test_who_is_named_and_unknown_to_the_ledger_is_stale_unless_lytics_has_them(
    relay_of_a_sync, call, sandbox
):
    drift(sandbox)
    relay = relay_of_a_sync
    for partition in relay.partitions():
        for number in range(12):
            relay.client.delete(partition.ledger(digest_of(f"email:p{number}@example.com")))
        relay.client.delete(partition.members("vip"))
    file = relay.settings.folder / "people.ndjson"
    file.write_text("".join(f'{{"email": "p{number}@example.com"}}\n' for number in range(12)))

    told = call(app, "reconcile", "vip", "--people", file, "--repair", "--yes", "--json")
    relay.drain()

    (found,) = orjson.loads(told.stdout)["destinations"]
    assert (found["ledger"], found["stale"]) == (0, 2)
    assert members(sandbox) == at_lytics(sandbox)


def test_repairs_tell_the_id_of_the_audience_and_it_may_be_compared_by_it(
    relay_of_a_sync, call, sandbox
):
    relay = relay_of_a_sync
    vip_id = audience_id("vip")
    drift(sandbox)

    told = call(app, "reconcile", vip_id, "--repair", "--yes", "--json")

    waiting = entries(relay.client, partitions=4)
    assert orjson.loads(told.stdout)["audience"] == "vip"
    assert {entry.profile["segment_events"][0]["id"] for entry in waiting} == {vip_id}
    assert len(waiting) == 3


ONE_WAY = """
[destinations.one]
api = "insider"
base_url = "{url}"
authorization = "insider"
rate = "25000/min"
[triggers.one]
destination = "one"
audiences = ["vip"]
on = "{on}"
template = "{on}.jsonnet"
url = "{path}"
"""


@pytest.mark.parametrize(("on", "missing"), [("exit", 0), ("enter", 11)])
def test_a_destination_differs_only_where_its_triggers_could_repair_it(
    relay, sandbox, call, on, missing
):
    path = {"exit": "/api/user/v1/attribute/delete", "enter": "/api/user/v1/upsert"}[on]
    one = ONE_WAY.format(url=sandbox.url, on=on, path=path)
    relay.configure(EXIT + LYTICS.format(url=sandbox.url) + one)
    rows = [
        {"_uid": f"u{n:03}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in range(11)
    ]
    sandbox.post("lytics/profiles", rows)

    told = call(app, "reconcile", "vip", "--json")

    found = {each["destination"]: each for each in orjson.loads(told.stdout)["destinations"]}
    assert (found["one"]["missing"], found["one"]["stale"]) == (missing, 0)
    assert found["insider"]["missing"] == 11


def test_a_destination_that_only_takes_out_misses_nobody_at_insider(relay_of_a_sync, call, sandbox):
    one = ONE_WAY.format(url=sandbox.url, on="exit", path="/api/user/v1/attribute/delete")
    relay_of_a_sync.configure(EXIT + LYTICS.format(url=sandbox.url) + one)
    empty_list = [
        {
            "identifiers": {"email": "p3@example.com"},
            "custom": {"partial": {DEFAULT_AUDIENCE_ATTRIBUTE: ["vip"]}},
        }
    ]
    httpx.post(
        f"{sandbox.url}/api/user/v1/attribute/delete",
        headers={"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"},
        json={"users": empty_list},
    ).raise_for_status()

    told = call(app, "reconcile", "vip", "--insider", "--json")

    found = {each["destination"]: each for each in orjson.loads(told.stdout)["destinations"]}
    assert found["one"]["insider"] == {"read": 0, "missing": 0, "stale": 0, "unknown": 0}
    assert found["insider"]["insider"]["missing"] == 1
