"""What people did is kept, with who did it and why, and without anybody's address."""

import re
from dataclasses import replace

import pytest

from segrelay.ops.state.opened import act_of, perform
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import (
    BROKEN_OFF,
    carry_out,
    note_act,
    read_acts,
)
from segrelay.worker.contract.redis.url import FAILOVER_SECONDS
from segrelay.worker.contract.triggers import read_pauses
from segrelay.worker.errors import RedisUnavailable, UsageWrong
from tests.integration.ops.relay import payload


@pytest.fixture(autouse=True)
def _actor(monkeypatch):
    monkeypatch.setenv("SEGRELAY_ACTOR", "ann")


def newest(relay):
    return next(read_acts(relay.client))


def test_discarding_tells_how_many_and_what_was_chosen(relay, call):
    relay.publish(*(payload(f"p{n}@example.com") for n in range(5)))
    call("discard", "--trigger", "vip-enter", "--yes", "--why", "a wrong export")

    act = newest(relay)
    assert (act.what, act.count, act.reason) == ("discard", 5, "a wrong export")
    assert act.arguments == {"trigger": "vip-enter"}
    assert act.outcome == "done"


def test_an_act_that_breaks_off_tells_how_far_it_came_or_what_to_do(relay):
    def broken(doing):
        doing.count = 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(relay.client, act_of("discard"), broken)

    assert (newest(relay).outcome, newest(relay).count) == (BROKEN_OFF, 3)

    def kept_from_its_end(_):
        raise RedisUnavailable("Redis is away.", FAILOVER_SECONDS)

    with pytest.raises(RedisUnavailable, match="`segrelay audience retire vip` is not finished"):
        perform(relay.client, act_of("audience retire", "vip"), kept_from_its_end)
    assert newest(relay).outcome == "begun"


def test_an_act_goes_on_when_redis_is_back_and_is_kept_once(relay):
    attempts = []

    def broken_twice(doing):
        attempts.append(1)
        doing.count += 1
        if len(attempts) < 3:
            raise RedisUnavailable("Redis is away.")
        return doing.count

    assert perform(relay.client, act_of("discard"), broken_twice) == 3
    assert [(one.outcome, one.count) for one in read_acts(relay.client)] == [("done", 3)]


def test_an_act_whose_answer_was_lost_is_neither_kept_nor_carried_out_again(relay):
    act = act_of("audience set", "4f5a", arguments={"to": "vip"})

    for _ in range(2):
        assert carry_out(relay.client, act, keys.AUDIENCES, "HSET", "4f5a", "vip") == 1
        assert len({note_act(relay.client, replace(act, outcome="begun")) for _ in range(2)}) == 1
    assert relay.client.xlen(keys.ACTS) == 2


def test_the_command_filters_and_prints_json_and_no_acts_in_words(call):
    call("resume", "insider")  # nothing is paused: that is no act
    assert call("audit").stdout == "No act of a person is kept yet.\n"
    call("pause", "insider")
    call("audience", "set", "4f5a", "vip")

    assert "audience set" in call("audit").stdout
    told = call("audit", "--what", "audience", "--json").stdout
    assert '"what": "audience set"' in told
    assert '"subject": "4f5a"' in told
    assert "pause" not in told
    assert call("audit", "--by", "bob").stdout == "No act that is kept is like this.\n"
    assert call("audit", "--by", "bob", "--json").stdout.strip() == "[]"


def test_who_paused_since_when_and_why_is_told_everywhere_without_an_address(relay, call):
    with pytest.raises(UsageWrong, match="501 characters; at most 500"):
        call("pause", "insider", "--why", "r" * 501)
    assert read_pauses(relay.client).destinations == {}
    assert list(read_acts(relay.client)) == []
    relay.publish(payload("ann@example.com"))
    reason = ("--why", "asked by bob@example.com, +49 170 1234567")
    call("dlq", "discard", "--text", "ann@example.com", *reason)

    paused = call("pause", "insider", *reason).stdout
    status, why = call("status").stdout, call("why", "ann@example.com").stdout
    told = [paused, status, why, call("status", "--json").stdout, call("audit").stdout]

    kept = str(relay.client.xrange(keys.ACTS))
    for text in (*told, kept):
        assert not re.search("(ann|bob)@example|1234567", text)
    assert "asked by" in kept
    assert read_pauses(relay.client).destinations["insider"].reason == "asked by •••, •••"
    assert "destination_paused insider since 20" in status
    assert "asked by •••, ••• (by ann)" in status
    shown = "the destination is paused: asked by •••, ••• (by ann since 20"
    assert shown in " ".join(why.split())


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ("ann.lee@example.com", "ann.lee"),
        ("Ann Lee <ann@example.com>", "Ann Lee <ann>"),
        ("ann@laptop", "ann"),
        ("+49 170 1234567", "•••"),
        ("ann\n\x1b[31m lee " + "x" * 3000, "ann [31m lee " + "x" * 87),
    ],
)
def test_of_a_persons_own_address_only_the_name_is_kept_as_one_short_line(
    relay, call, monkeypatch, named, kept
):
    monkeypatch.setenv("SEGRELAY_ACTOR", named)
    call("pause", "insider")

    assert newest(relay).by == kept
    assert read_pauses(relay.client).destinations["insider"].by == kept
    assert '"what": "pause"' in call("audit", "--by", named, "--json").stdout
    assert "example.com" not in str(relay.client.xrange(keys.ACTS))


def test_the_abort_of_a_paused_job_is_one_act(relay, call, tmp_path):
    rows = tmp_path / "rows.ndjson"
    rows.write_text('{"email": "ann@example.com"}')
    named = ("--audience", "vip", "--as-of", "now", "--job", "load")
    call("backfill", "start", str(rows), *named)
    call("backfill", "pause", "load")
    call("backfill", "abort", "load", "--yes")

    told = [(act.what, act.count) for act in read_acts(relay.client)]
    assert told == [("backfill abort", 1), ("backfill pause", None), ("backfill start", None)]
    (*_, started) = read_acts(relay.client)
    assert (started.subject, started.arguments["from"]) == ("load", str(rows))
    assert read_pauses(relay.client).jobs == {}
