"""`segrelay quarantine` as a person calls it."""

from functools import partial

import orjson
import pytest

from segrelay.producer.events.payloads import Refused
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.printable import MASK
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import UsageWrong
from tests.commands import called
from tests.unit.producer.payload_samples import ENTER, wrapped

REASONS = {"no_trigger", "bad_time", "unreadable"}


@pytest.fixture
def run(configure, publisher_of, monkeypatch):
    """Call the command on a quarantine that holds a mistyped slug, a bad time and a broken line."""
    settings = configure()
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    mistyped = wrapped(source="secret", segment_events=[{**ENTER, "id": None, "slug": "vipp"}])
    late = wrapped(segment_events=[{**ENTER, "enter": "never"}])
    publisher_of(settings).publish([orjson.dumps(mistyped), orjson.dumps(late), b'{"email": "e@x"'])
    return partial(called, "quarantine")


def listed(run, *arguments):
    return orjson.loads(run("list", "--json", *arguments).stdout)


def test_a_mistyped_slug_is_found_with_the_one_that_was_meant(run):
    output = run("list").stdout

    assert "vipp" in output
    assert "A trigger names 'vip'" in output
    assert "3 records" in output


def test_records_are_listed_by_audience_and_reason(run):
    assert {one["reason"] for one in listed(run)} == REASONS
    assert [one["audience"] for one in listed(run, "--audience", "vipp")] == ["vipp"]
    assert [one["audience"] for one in listed(run, "--reason", "bad_time")] == ["vip"]
    with pytest.raises(UsageWrong, match="no reason 'typo'"):
        run("list", "--reason", "typo")


def test_profile_fields_are_masked_unless_revealed(run):
    for record in listed(run):
        hidden = run("show", record["id"], "--json").stdout
        shown = run("show", record["id"], "--json", "--reveal").stdout

        assert "ann@example.com" not in hidden
        assert "secret" not in hidden
        assert "e@x" not in hidden
        assert MASK in hidden
        assert MASK not in shown
    assert "e@x" in shown or "ann@example.com" in shown


def test_replay_says_what_stays_and_why(run, client):
    document = orjson.loads(run("replay", "--all", "--json").stdout)

    assert document.pop("kept_by_reason") == dict.fromkeys(REASONS, 1)
    assert document == {"tried": 3, "placed": 0, "accepted": 0, "kept": 3}
    assert Quarantine(client).totals().records == 3


def keep(client, entered):
    """Keep an entrance for which there was no trigger, and is one now."""
    content = orjson.dumps(wrapped(segment_events=[ENTER | {"enter": entered}]))
    refused = Refused(Refusal.NO_TRIGGER, "none", "vip", content)
    Quarantine(client).keep([refused], now_ms=1_000, cap_bytes=1 << 20)


def test_what_the_ledger_has_forgotten_stays_unless_forced(run, client):
    keep(client, "2001-01-01T00:00:00Z")

    within = run("replay", "--audience", "vip", "--reason", "no_trigger")
    forced = run("replay", "--audience", "vip", "--reason", "no_trigger", "--force", "--json")

    assert "0 of 1 placed" in within.stdout
    assert "--force takes them" in within.stdout
    assert orjson.loads(forced.stdout)["placed"] == 1


def test_discard_counts_and_asks_nobody_who_is_not_there(run, client):
    with pytest.raises(UsageWrong, match="Discard 1 record "):
        run("discard", "--audience", "vipp", stdin="y\n")
    agreed = run("discard", "--audience", "vipp", "--yes")
    rest = run("discard", "--all", "--yes", "--json")

    assert "1 record discarded" in agreed.stdout
    assert orjson.loads(rest.stdout) == {"discarded": 2}
    assert Quarantine(client).totals().records == 0


def test_a_dry_run_of_a_replay_says_what_would_be_placed_and_places_nothing(run, client):
    keep(client, "2026-11-01T00:00:00Z")

    document = orjson.loads(run("replay", "--dry-run", "--json").stdout)

    assert (document["would_be_placed"], document["would_be_kept"]) == (1, 3)
    assert {one["reason"] for one in document["records"]} == {"", *REASONS}
    assert "ann@example.com" not in run("replay", "--dry-run").stdout
    assert Quarantine(client).totals().records == 4
