"""Redis behind Sentinels: a replica takes over while everything runs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from segrelay.sandbox.people import payloads
from tests.configuration import table
from tests.journeys.intake.test_backfill_journey import AS_OF, rows_as_happenings, write_rows
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, start_worker
from tests.journeys.receiver import Receiver, answers
from tests.nightly import amount
from tests.ports import own_port
from tests.topologies import Sentinels
from tests.waiting import until

SLOW = {"latency_seconds": 2.0}
"""So much waits for each answer that the masters are lost amid it."""
ROWS = amount(2_500, nightly=8_000)
KILLS = amount((True,), nightly=(True, False))
"""For each failover, whether the master is killed; else it is planned."""
REPLICAS = 2
"""All of them: a planned failover chooses any of them."""


@pytest.fixture
def sentinels(tmp_path):
    with Sentinels(tmp_path / "redis") as started:
        yield started


def beside(act, *arguments, **options):
    """Call a function in a thread; returns a function that waits for its end, and its answer."""
    return ThreadPoolExecutor(1).submit(act, *arguments, **options).result


def take_over(sentinels, *, by_kill):
    """Let a replica take over, and wait until both others follow it."""
    before = sentinels.master()
    if by_kill:
        sentinels.kill_master()
        after = sentinels.await_other_master(before)
        sentinels.start_server(before, after)
    else:
        sentinels.fail_over()
        sentinels.await_other_master(before)
    sentinels.await_replicas(2)


def succeeds(finish):
    """Assert that a command that was started beside comes to a good end."""
    done = finish()
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_replicas_take_over_and_nothing_that_was_acknowledged_is_lost(sentinels, tmp_path):
    happened, sent = invent(amount(1_000, nightly=3_000), amount(400, nightly=1_000), seed=62)
    posted, *files = (sent[at :: len(KILLS) + 1] for at in range(len(KILLS) + 1))
    emails = [f"row{number}@example.com" for number in range(ROWS)]
    rows = write_rows(tmp_path / "rows.ndjson", emails)
    job = ("backfill", "start", rows, "--audience", "vip", "--as-of", AS_OF.isoformat())
    receiver, flower = Receiver(), own_port()
    is_over = threading.Event()

    def post_all():
        """Post one after the other; return what was not taken."""
        texts = payloads(posted)
        return [text for text in texts if is_over.wait(0.01) or receiver.post(text) != 200]

    with Rig(
        tmp_path,
        redis_url=sentinels.url,
        redis_lines=f"high_water = 2000\nreplicas = {REPLICAS}",
        delivery_lines=SHORT,
        sandbox_settings=SLOW,
        more=receiver.table() + table("flower", listen=f"127.0.0.1:{flower}", password="plain"),
    ) as rig:
        start_worker(rig)
        serving, watching = receiver.start(rig), rig.start_beside("flower")
        begun = (f"{receiver.url}/readyz", f"http://127.0.0.1:{flower}/healthcheck")
        until(lambda: all(map(answers, begun)), 60)
        posting = beside(post_all)
        reading = beside(rig.command, *job, "--job", "load")
        until(lambda: rig.waiting() > 1_000)

        for file, by_kill in zip(files, KILLS, strict=True):
            sending = beside(rig.command, "send", "-", given=lines(file))
            take_over(sentinels, by_kill=by_kill)
            succeeds(sending)
        is_over.set()
        rig.sandbox.settings(latency_seconds=0.02)
        succeeds(reading)

        succeeds(beside(rig.command, "send", "-", given=b"\n".join(posting())))
        rig.wait_until_empty(60)
        nothing_is_wrong(rig, happened + rows_as_happenings(emails, "vip"))
        assert [serving.poll(), watching.poll(), rig.workers[0].poll()] == [None] * 3
        until(lambda: workers_shown(flower))


def workers_shown(port):
    """Return the workers that Flower has heard of, and that are there."""
    found = httpx.get(
        f"http://127.0.0.1:{port}/workers?json=1", auth=("ops", "plain"), timeout=120
    ).json()
    return [one for one in found["data"] if one["status"]]
