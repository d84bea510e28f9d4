"""Commands that act, while a replica takes over: they wait, go on, and come to their end."""

import orjson
import pytest

from segrelay.worker.contract.redis.acts import DONE, read_acts
from tests.journeys.intake.test_backfill import AS_OF, write_rows
from tests.journeys.play import SHORT, Rig, start_worker, status_of
from tests.journeys.redis.test_sentinel import REPLICAS, beside, succeeds, take_over
from tests.nightly import amount
from tests.topologies import Sentinels
from tests.waiting import until

PEOPLE = amount(1_500, nightly=6_000)
EMAILS = [f"row{number}@example.com" for number in range(PEOPLE)]


@pytest.fixture
def rig(tmp_path):
    with (
        Sentinels(tmp_path / "redis") as sentinels,
        Rig(
            tmp_path,
            redis_url=sentinels.url,
            redis_lines=f"replicas = {REPLICAS}",
            delivery_lines=SHORT,
            audiences=("vip",),
        ) as started,
    ):
        started.sentinels = sentinels
        yield started


def in_a_failover(rig, what, *words):
    """Kill the master as soon as a command has begun to act; return what it prints at its end."""
    acting = beside(rig, *what, *words, "--json")
    until(lambda: any(act.what == " ".join(what) for act in read_acts(rig.client)))
    take_over(rig.sentinels, by_kill=True)
    succeeds(acting)
    [act] = [one for one in read_acts(rig.client) if one.what == " ".join(what)]
    assert act.outcome == DONE
    return orjson.loads(acting().stdout)


@pytest.mark.nightly
def test_commands_that_act_go_on_by_themselves_when_a_replica_takes_over(rig, tmp_path):
    rows = write_rows(tmp_path / "rows.ndjson", EMAILS)
    job = ("--audience", "vip", "--as-of", AS_OF.isoformat())
    for name in ("load", "again"):
        succeeds(beside(rig, "backfill", "start", rows, *job, "--job", name))

    in_a_failover(rig, ("backfill", "abort"), "again", "--yes")
    status = status_of(rig)
    assert (status["waiting"], status["discarded"]) == (PEOPLE, PEOPLE)

    start_worker(rig)
    rig.wait_until_empty(60)
    assert rig.memberships() == {email: ["vip"] for email in EMAILS}
    in_a_failover(rig, ("audience", "retire"), "vip", "--people", rows, "--yes")
    rig.wait_until_empty(60)
    assert not any(rig.memberships().values())
