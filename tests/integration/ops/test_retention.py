"""Dead letters, quarantined records and the outcome log go when they were kept for long enough."""

import orjson
import pytest

from segrelay.ops.retention import DROPPED_AT_ONCE, Retention
from segrelay.ops.state.background import LETTERS, RECORDS, RetentionState, limits_of
from segrelay.ops.terminal.moments import shown_ms
from segrelay.worker.adapters.redis.survey import RedisSchedule
from segrelay.worker.contract import keys
from tests.configuration import table
from tests.integration.ops.outcomes.counting import counted, counts_of, rows_of
from tests.integration.ops.relay import EXIT, payload

DAY_MS = 86_400_000


def configured(relay, **limits):
    """Set these times of retention."""
    relay.configure(EXIT + table("retention", **limits))


def refused(relay, sandbox, count, first=0):
    """Let people die, and as many records come into the quarantine."""
    sandbox.settings(poison="poisoned", poison_status=200)
    people = range(first, first + count)
    relay.deliver(*(payload(f"p{n}@example.com", status="poisoned") for n in people))
    relay.publish(*(payload(f"q{n}@example.com", direction="change") for n in people))
    sandbox.settings(poison="")


def aged(relay, days, *logs):
    """Let letters and records be older by some days, and what these logs hold."""
    client = relay.client
    for partition in relay.partitions():
        age(client, partition.dead_letter_times, days)
        for log in (getattr(partition, name) for name in logs):
            entries = client.xrange(log)
            client.delete(log)
            for entry_id, fields in entries:
                at, _, number = entry_id.decode().partition("-")
                client.xadd(log, fields, id=f"{int(at) - days * DAY_MS}-{number}")
    age(client, keys.quarantine("seen"), days)


def let_expire(relay, sandbox, count):
    """Let there be old letters and records that the next step drops."""
    configured(relay)
    refused(relay, sandbox, count)
    aged(relay, 100)


def age(client, key, days):
    for member, score in client.zrange(key, 0, -1, withscores=True):
        client.zadd(key, {member: score - days * DAY_MS})


def stand_still(relay):
    """Drop what may go in a step that stood still before, for longer than it may."""
    now_ms = int(relay.client.time()[0]) * 1_000
    return list(Retention(relay.client, relay.settings).drop(relay.partitions(), now_ms - 21_000))


def step(relay, client=None):
    """Do steps until one has nothing more to do; return the lines. Workers have run before."""
    now_ms = int(relay.client.time()[0]) * 1_000
    before = RetentionState(now_ms, 0, limits_of(relay.settings.retention))
    relay.client.hsetnx(keys.RETENTION, "state", before.dumps())
    lines = []
    while True:
        done = Retention(client or relay.client, relay.settings).step()
        lines.append(done.line)
        if not done.more:
            return lines


def problems(call):
    found = orjson.loads(call("status", "--json").stdout)["problems"]
    return {one["name"]: one for one in found}


def letters(relay):
    return sum(relay.client.hlen(partition.dead_letters) for partition in relay.partitions())


def test_old_letters_and_records_are_announced_and_dropped_a_week_later(
    relay, sandbox, call, tmp_path
):
    configured(relay)
    refused(relay, sandbox, 5)
    aged(relay, 84)
    refused(relay, sandbox, 3, first=5)

    step(relay)

    found = problems(call)
    assert found["letters_expire"]["subject"] == "insider"
    assert "5 dead letters will be dropped" in found["letters_expire"]["message"]
    command, *_ = found["letters_expire"]["command"].removeprefix("segrelay ").split(";")
    assert len(orjson.loads(call(*command.split(), "--json").stdout)) == 5
    assert "5 quarantined records" in found["quarantine_expires"]["message"]
    assert letters(relay) == 8

    aged(relay, 7)
    step(relay)

    status = relay.status()
    assert (status["dead"], status["discarded"], letters(relay)) == (3, 5, 3)
    assert status["quarantined"] == 3
    assert status["retention"][LETTERS.replace(" ", "_")]["dropped"] == 5
    assert status["retention"][RECORDS.replace(" ", "_")]["dropped"] == 5
    assert not {"letters_expire", "quarantine_expires"} & problems(call).keys()
    assert "dropped 5 dead letters" in call("status").stdout
    causes = orjson.loads(call("dlq", "causes", "--json").stdout)
    assert sum(one["count"] for one in causes) == 3
    call("outcomes", "export", tmp_path / "all.ndjson")
    rows = rows_of(tmp_path / "all.ndjson")
    told = [row | {"reason": row["reason"] * (row["outcome"] == "dead")} for row in rows]
    assert counted(told) == counts_of(status)
    assert sum(row["reason"] == "expired" for row in rows) == 5


LONGER = {LETTERS: 400 * DAY_MS}


@pytest.mark.parametrize(
    "case",
    [(DAY_MS, {}, DAY_MS), (100 * DAY_MS, {}, 7 * DAY_MS), (60_000, LONGER, 7 * DAY_MS)],
    ids=["workers-away-a-day", "workers-away-for-long", "shorter-limit"],
)
def test_nothing_goes_before_health_could_name_it(relay, sandbox, call, case):
    away_ms, former, owed_ms = case
    let_expire(relay, sandbox, 2)
    limits = limits_of(relay.settings.retention)
    now_ms = int(relay.client.time()[0]) * 1_000
    former_state = RetentionState(now_ms - away_ms, 0, limits | former)
    relay.client.hset(keys.RETENTION, "state", former_state.dumps())

    assert step(relay) == ["dropped: nothing"]
    message = problems(call)["letters_expire"]["message"]
    assert "2 dead letters will be dropped" in message
    assert any(shown_ms(now_ms + owed_ms + ms)[:10] in message for ms in (-60_000, 60_000))

    state = RetentionState.loads(relay.client.hget(keys.RETENTION, "state"))
    assert state.owed_ms == pytest.approx(owed_ms, abs=60_000)
    for minute in range(1, owed_ms // 60_000):
        assert not state.is_due(now_ms + minute * 60_000, 7 * DAY_MS, limits)
    relay.client.hset(keys.RETENTION, "state", RetentionState(now_ms, 0, limits).dumps())
    assert step(relay) != ["dropped: nothing"]


def test_what_is_kept_for_ever_is_neither_announced_nor_dropped(relay, sandbox, call):
    configured(relay, dead_letters="0s", quarantine="0s", history="0s")
    refused(relay, sandbox, 2)
    aged(relay, 3_000)

    step(relay)

    assert (letters(relay), relay.status()["quarantined"]) == (2, 2)
    assert not {"letters_expire", "quarantine_expires"} & problems(call).keys()


def test_a_record_that_comes_again_and_a_letter_that_died_anew_are_kept_anew(relay, sandbox, call):
    let_expire(relay, sandbox, 1)
    relay.publish(payload("q0@example.com", direction="change"))
    sandbox.settings(poison="poisoned", poison_status=200)
    assert call("dlq", "replay", "--all", "--yes").exit_code == 0
    relay.drain()

    step(relay)

    found = relay.status()
    assert (letters(relay), found["quarantined"], found["discarded"]) == (1, 1, 0)


def test_without_a_state_that_can_be_read_or_without_time_a_step_drops_nothing(relay, sandbox):
    """The scripts look at the time: a worker that stood still may have an older configuration."""
    let_expire(relay, sandbox, 3)

    for stored in (b"", b'{"seen_ms": "damaged'):
        relay.client.hset(keys.RETENTION, "state", stored)
        assert step(relay) == ["dropped: nothing"]

    assert {dropped for _, dropped in stand_still(relay)} == {0}
    assert (letters(relay), relay.status()["quarantined"]) == (3, 3)


def test_very_many_letters_go_in_steps(relay, sandbox):
    configured(relay)
    refused(relay, sandbox, 1)
    partition = next(at for at in relay.partitions() if relay.client.hlen(at.dead_letters))
    [(one_id, text)] = relay.client.hgetall(partition.dead_letters).items()
    many = 2 * DROPPED_AT_ONCE + 50
    for number in range(1, many):
        other = one_id + b"-%d" % number
        relay.client.hset(partition.dead_letters, other, text.replace(one_id, other))
        relay.client.zadd(partition.dead_letter_times, {other: 1_000})
    header = orjson.loads(text)
    relay.client.hincrby(partition.causes, f"{header['cause']}|n", many - 1)
    for kind in ("accepted|vip-enter", f"dead|vip-enter|{header['reason']}"):
        relay.client.hincrby(partition.counts, kind, many - 1)
    aged(relay, 100)

    lines = step(relay)

    assert len(lines) == 3
    assert (letters(relay), relay.status()["discarded"]) == (0, many)


def test_the_outcome_log_goes_without_a_word(relay):
    configured(relay)
    relay.deliver(payload("ann@example.com", minute=5))
    relay.deliver(payload("ann@example.com", minute=1))
    aged(relay, 31, "outcomes")
    relay.deliver(payload("ann@example.com", minute=2))

    step(relay)

    assert sum(relay.client.xlen(partition.outcomes) for partition in relay.partitions()) == 1
    assert relay.status()["skipped"] == 2


def test_the_sweep_wakes_retention(relay):
    due = {job.task for job in RedisSchedule(relay.client, relay.settings).due()}
    assert "segrelay.retention" in due

    step(relay)
    relay.client.delete(keys.wakeup(keys.RETENTION))

    due = {job.task for job in RedisSchedule(relay.client, relay.settings).due()}
    assert "segrelay.retention" not in due
