"""What Redis keeps of backfills that are over goes once the history is older."""

import orjson
import pytest

from segrelay.producer.backfill.jobs import JobStore
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.errors import UsageWrong
from tests.configuration import table
from tests.integration.ops.relay import EXIT, started
from tests.integration.ops.test_retention import (
    DAY_MS,
    aged,
    letters,
    refused,
    stand_still,
    step,
)
from tests.interruptions import Case, interrupted_anywhere
from tests.nightly import amount

EVERY, TIMES = amount((4, 3), nightly=(1, 12))
COUNTS = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


class Jobs:
    """Backfills of a small segrelay, which are over for as long as a test says."""

    def __init__(self, relay, call, folder):
        self.relay, self.call, self.folder = relay, call, folder
        self.store = JobStore(relay.client)

    def read(self, name, *people, days=0, file="", drains=True):
        """Read a file of people to its end, and let that and its deliveries be some days ago."""
        path = self.folder / f"{file or name}.ndjson"
        path.write_bytes(
            b"".join(orjson.dumps({"email": f"{one}@example.com"}) + b"\n" for one in people)
        )
        options = ("--audience", "vip", "--as-of", "now")
        named = () if file else ("--job", name)
        result = self.call("backfill", "start", path, *options, *named, "--again")
        assert result.exit_code == 0, result.output
        if drains:
            self.relay.drain()
        self.age(name, days)

    def age(self, name, days):
        client = self.relay.client
        moved = int(client.hget(keys.job(name), "moved"))
        client.hset(keys.job(name), "moved", moved - days * DAY_MS)

    def left(self, name):
        """Return the fields, members and keys that still name a job, but its closed partitions."""
        client = self.relay.client
        found = client.keys(f"*job.{name}|*")
        found += [one for one in client.smembers(keys.JOBS) if one == name.encode()]
        found += client.keys(keys.job(name))
        for at in self.relay.partitions():
            for key in (at.counts, at.jobs):
                fields = client.hkeys(key)
                found += [one for one in fields if name.encode() in one.split(b"|")]
        return [one for one in found if not one.endswith(b"|epoch")]


@pytest.fixture
def jobs(relay, call, tmp_path):
    relay.configure(EXIT + table("retention"))
    return Jobs(relay, call, tmp_path)


def sums(relay, *kinds):
    status = relay.status()
    return {kind: status[kind] for kind in kinds or COUNTS}


def forgotten(relay):
    return sorted(act.subject for act in read_acts(relay.client) if act.what == "retention")


def test_a_backfill_that_ended_before_the_history_is_forgotten_and_the_sums_stay(jobs, relay):
    jobs.read("old", "ann", "bob", days=31)
    jobs.read("young", "cid", days=29)
    relay.client.sadd(keys.JOBS, "nobody")  # whoever made or forgot that one was killed
    before = sums(relay)

    stand_still(relay)
    relay.configure(EXIT + table("retention", history="0s"))
    assert step(relay) == ["dropped: nothing"], "the history is kept for ever"
    assert relay.status()["jobs"]["old"]["delivered"] == 2
    relay.configure(EXIT + table("retention"))
    relay.client.delete(keys.RETENTION)
    lines = step(relay)

    assert lines == ["dropped: 1 backfills"]
    assert jobs.left("old") == []
    assert jobs.store.names() == ["young"]
    assert sums(relay) == before
    assert relay.status()["jobs"].keys() == {"young"}
    assert forgotten(relay) == ["backfill old"]


PAUSED = '{"reason": "wait", "by": "ann", "at": "2026-01-01T00:00:00+00:00"}'


def test_a_backfill_that_somebody_may_go_on_with_is_kept(jobs, relay):
    jobs.read("old", "ann", days=400)
    phases = ("reading", "canary", "paused", "failed")
    open_ = [(keys.job("old"), "phase", phase) for phase in phases]
    for key, field, text in (*open_, (keys.PAUSED, "job|old", PAUSED)):
        relay.client.hset(keys.job("old"), "phase", "read")
        relay.client.hset(key, field, text)

        step(relay)

        assert jobs.left("old")
        assert relay.client.hget(key, field) == text.encode()
        assert relay.status()["jobs"]["old"]["delivered"] == 1


def test_a_backfill_whose_deliveries_wait_or_lie_dead_is_kept_as_a_whole(
    jobs, relay, sandbox, call
):
    sandbox.settings(poison="p3@example.com", poison_status=200)
    jobs.read("old", *(f"p{n}" for n in range(20)), drains=False, days=400)
    runtime = started(relay.settings)
    runtime.drain("insider", 0, Stop())  # in one partition, nothing waits
    runtime.close()
    assert 0 < relay.status()["jobs"]["old"]["waiting"] < 20

    step(relay)

    assert relay.status()["jobs"]["old"]["accepted"] == 20
    relay.drain()
    step(relay)
    found = relay.status()["jobs"]["old"]
    assert (found["accepted"], found["delivered"], found["dead"]) == (20, 19, 1)
    call("dlq", "discard", "--all", "--yes")
    step(relay)
    assert jobs.left("old") == []


def test_a_file_is_read_again_under_the_name_of_a_backfill_that_was_forgotten(jobs, relay, call):
    """Where its readers were is kept for longer, and is not that of the new one."""
    jobs.read("vip", "ann", "bob", days=31, file="people")
    step(relay)
    assert jobs.left("vip") == []
    start = ("--audience", "vip", "--as-of", "now", "--job", "vip")

    with pytest.raises(UsageWrong, match="within the last day"):
        call("backfill", "start", jobs.folder / "people.ndjson", *start)
    jobs.read("vip-2", "ann", "bob", file="people")
    relay.client.delete(keys.job_forgotten("vip"))
    jobs.read("vip", "ann", "bob", file="people")

    found = relay.status()["jobs"]
    assert [found[name]["delivered"] for name in ("vip", "vip-2")] == [2, 2]


def test_a_reader_of_an_aborted_backfill_that_was_forgotten_writes_nothing(jobs, relay):
    """It stood still all the time, and its epoch is refused in all partitions."""
    jobs.read("old", "ann", days=31)
    jobs.read("young", "ann")
    client = relay.client
    jobs.store.stop("old", "aborted", relay.partitions())
    jobs.age("old", 31)
    epoch = int(client.hget(keys.job("old"), "epoch"))
    step(relay)
    assert jobs.left("old") == []

    for at in relay.partitions():
        assert int(client.hget(at.jobs, "old|epoch")) > epoch

    now = int(client.time()[0]) * 1_000
    for at in relay.partitions():
        jobs.store.reopen(at, now - DAY_MS)
        assert client.hget(at.jobs, "old|epoch")
        jobs.store.reopen(at, now + DAY_MS)
        assert not client.hget(at.jobs, "old|epoch")
        assert client.hget(at.jobs, "young|epoch"), "that backfill is there"


def test_another_backfill_of_the_name_is_not_forgotten_by_who_stood_still(jobs, relay):
    jobs.read("old", "ann", days=31)
    found = jobs.store.named("old")
    jobs.store.forget(found, relay.partitions())
    relay.client.delete(keys.job_forgotten("old"))
    jobs.read("old", "bob")

    assert not jobs.store.forget(found, relay.partitions())

    assert relay.status()["jobs"]["old"]["delivered"] == 1


def test_no_id_is_given_again_that_was_in_a_stream_of_a_forgotten_backfill(jobs, relay):
    """Also where the clock was set back: a late settlement would remove a new entry."""
    jobs.read("old", *(f"p{n}" for n in range(40)), days=31)
    streams = {at: at.stream("job.old|vip-enter") for at in relay.partitions()}
    ahead_ms = (int(relay.client.time()[0]) + 3_600) * 1_000
    floors = [1, ahead_ms + 9, 1, ahead_ms + 9]
    for (at, stream), floor in zip(streams.items(), floors, strict=True):
        relay.client.hset(at.lease, "floor", floor)
        relay.client.xadd(stream, {"h": "", "p": ""}, id=f"{ahead_ms}-5")
        relay.client.xdel(stream, f"{ahead_ms}-5")

    step(relay)

    assert not any(map(relay.client.exists, streams.values()))
    found = [int(relay.client.hget(at.lease, "floor")) for at in streams]
    assert found == [max(floor, ahead_ms) for floor in floors]


@pytest.fixture
def due(jobs, relay, sandbox):
    """Backfills, letters and records that the next step drops, and some that it leaves."""
    for number in range(3):
        jobs.read(f"old-{number}", f"p{number}", "ann", days=31)
    jobs.read("young", "bob", days=1)
    refused(relay, sandbox, 6)
    aged(relay, 100)
    refused(relay, sandbox, 4, first=6)
    kept = ("accepted", "delivered", "skipped", "waiting")
    before = sums(relay, *kept)

    def holds():
        assert sums(relay, *kept) == before

    return Case(
        lambda client: step(relay, client),
        lambda: (
            sums(relay, *COUNTS, "quarantined"),
            letters(relay),
            sum(relay.client.xlen(partition.outcomes) for partition in relay.partitions()),
            relay.status()["jobs"].keys(),
            [jobs.left(f"old-{number}") for number in range(3)],
            forgotten(relay),
        ),
        holds=holds,
    )


def test_a_step_that_is_killed_or_stands_still_anywhere_is_done_again(relay, redis_url, due):
    interrupted_anywhere(relay.client, redis_url, due, every=EVERY, times=TIMES)
