"""What a plan says of a file, before anything is written."""

from pathlib import Path

import orjson
import pytest

from tests.integration.producer.backfill.backfill_relay import AS_OF, Relay

TEMPLATE = """
local lio = import 'lytemplates.libsonnet';
assert !lio.has('bot') : 'bots are left out';
{ users: [{ identifiers: { email: lio.get('email') }, attributes: { name: lio.get('name') } }] }
"""
GOOD = [orjson.dumps({"email": f"p{n}@example.com", "name": "Ann"}) for n in range(2_500)]


@pytest.fixture
def relay(relay: Relay) -> Relay:
    (relay.folder / "templates" / "any.jsonnet").write_text(TEMPLATE)
    return relay


def test_a_plan_counts_names_bad_rows_and_shows_masked_bodies(relay: Relay, tmp_path: Path) -> None:
    rows = [*GOOD, b'{"name": "Nobody"}', b"{broken", b'{"email": "b@example.com", "bot": 1}']
    path = tmp_path / "people.ndjson"
    path.write_bytes(b"\n".join(rows))

    found = relay.document("plan", str(path), *AS_OF)

    assert (found["rows"], found["events"], found["refused"]) == (2_503, 2_501, 2)
    assert [(bad["line"], bad["reason"]) for bad in found["bad_rows"]] == [
        (2_501, "no_identity"),
        (2_502, "unreadable"),
    ]
    trigger = found["triggers"]["vip-enter"]
    assert (trigger["deliveries"], trigger["to_send"], trigger["known"]) == (2_501, 2_501, {})
    assert trigger["sample"] == {"sent": 100}
    # Four partitions of about 625 people: each is one request of up to 1,000.
    assert found["requests"] == 4
    assert 0 < found["seconds_at_the_rate"] < 1
    [sent] = found["bodies"]
    assert sent["trigger"] == "vip-enter"
    # The template says no skip_hook: it comes with what is sent.
    assert sent["body"]["skip_hook"] == "•••"
    assert sent["body"]["users"][0]["identifiers"]["email"] == "•••"
    told = relay.run("plan", str(path), *AS_OF).stdout.decode()
    assert "2,503 rows: 2,501 events, 0 unmatched, 2 refused" in told
    assert "people.ndjson:2502: unreadable" in told
    assert "p1@example.com" not in told
    assert relay.document("status") == []
    assert relay.published("people") == []


READS_ID = TEMPLATE.replace("lio.get('name')", "lio.get('segment_events')[0].id")
ID = "0123456789abcdef0123456789abcdef"


def test_a_plan_says_that_rows_without_the_id_of_their_audience_would_be_dead(
    relay: Relay, tmp_path: Path
) -> None:
    (tmp_path / "templates" / "any.jsonnet").write_text(READS_ID)
    path = tmp_path / "people.ndjson"
    path.write_bytes(b"\n".join(GOOD[:10]))

    without = relay.document("plan", str(path), *AS_OF)["triggers"]["vip-enter"]
    ran = relay.run("plan", str(path), *AS_OF)
    told = relay.document("plan", str(path), *AS_OF, "--audience-id", ID)["triggers"]["vip-enter"]

    [(problem, count)] = without["problems"].items()
    assert (count, without["sample"]) == (10, {"dead template_error": 10})
    assert problem.startswith("any.jsonnet:4: no such field: id.")
    assert "--audience-id" in problem
    assert f"vip-enter: 10 of 10 would be dead: {problem}" in ran.stderr.decode()
    assert (told["problems"], told["sample"]) == ({}, {"sent": 10})


def test_a_plan_counts_rows_that_are_older_than_the_ledger(relay: Relay, tmp_path: Path) -> None:
    path = tmp_path / "people.ndjson"
    old, new = ({"at": f"{year}-01-01T00:00:00Z"} for year in (2001, 2026))
    rows = [{"email": f"p{n}@example.com"} | (old if n % 2 else new) for n in range(20)]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    given = (str(path), "--audience", "vip", "--as-of", "column:at")

    found = relay.document("plan", *given)
    told = relay.run("plan", *given).stdout.decode()

    assert found["refused_by_reason"] == {"older_than_ledger": 10}
    assert "--older-than-ledger accepts them" in told
