"""Audiences as a whole: counted by the ledger, and retired."""

import orjson
import pytest

from segrelay.worker.errors import UsageWrong
from tests.integration.ops.audiences.test_replaced_audience import members
from tests.integration.ops.relay import EXIT, LYTICS, payload
from tests.members import known_by_a_sync

COUNT = 12
"""As many as the relay of a sync has."""


def listed(call, slug):
    rows = orjson.loads(call("audience", "list", "--json").stdout)["audiences"]
    return next(row for row in rows if row["slug"] == slug)


def test_an_audience_is_counted_by_the_ledger_and_kept_if_no_trigger_lets_anybody_go(relay, call):
    relay.deliver(
        payload("ann@example.com"),
        payload("bob@example.com"),
        payload("bob@example.com", direction="exit", minute=1),
    )

    row = listed(call, "vip")

    found = row["destinations"]["insider"]
    assert (found["members"], found["left"], row["ids"]) == (1, 1, ["vipvipvip"])
    assert row["triggers"] == ["vip-enter", "vip-exit"]
    assert "vip-enter, vip-exit" in call("audience", "list").stdout
    relay.configure("")
    with pytest.raises(UsageWrong, match="No trigger wants the exit"):
        call("audience", "retire", "vip", "--yes")


def test_who_is_in_an_audience_that_is_retired_leaves_it(relay_of_a_sync, call, sandbox):
    answer = call("audience", "retire", "vip", "--yes", "--json")
    told = orjson.loads(answer.stdout)
    relay_of_a_sync.drain()

    assert (told["held"], told["published"]) == (COUNT, COUNT)
    assert "take [sync.vip] out of the configuration" in " ".join(answer.stderr.split())
    assert members(sandbox, "vip") == set()
    assert listed(call, "vip")["destinations"]["insider"]["members"] == 0


def test_for_whom_there_is_no_name_nothing_is_published(relay, call, sandbox):
    relay.deliver(payload("ann@example.com"), payload("bob@example.com"))
    relay.configure(EXIT + LYTICS.format(url=sandbox.url))
    known_by_a_sync(relay, ["ann@example.com"])

    told = call("audience", "retire", "vip", "--yes", "--json")

    assert told.exit_code == 1
    assert orjson.loads(told.stdout) == {
        "audience": "vip",
        "held": 2,
        "named": 1,
        "known": 1,
        "unknown": 0,
        "published": 1,
    }
    assert "backfill start SOURCE --audience vip --on exit" in " ".join(told.stderr.split())
