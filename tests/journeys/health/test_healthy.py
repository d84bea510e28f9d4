"""A healthy load announces nothing."""

import time
from itertools import count

import orjson
import pytest

from tests.journeys.health.staging import MEMBERS, SHIPPED, SYNC, TEMPLATE, again_and_again
from tests.journeys.judging import entrances, well
from tests.journeys.play import SHORT, Rig, run, send, start_worker, status_of, stop_worker
from tests.nightly import amount
from tests.waiting import patient

HEALTHY_SECONDS = amount(10, nightly=3_600)
DEPLOYS = amount(1, nightly=25)
TURNS = 5
"""Of the load, at least."""


def test_a_healthy_mixed_load_sends_no_message(tmp_path, channel, receiver):
    more = receiver.table() + SYNC.replace('"1s"', '"5s"') + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.sandbox.post("lytics/profiles", MEMBERS)
        start_worker(rig)
        start_worker(rig)
        receiver.start(rig)
        ends_at = time.monotonic() + HEALTHY_SECONDS
        for turn in count():
            if time.monotonic() > ends_at and turn > TURNS:
                break
            if turn % 20 == 0:
                backfill(rig, turn)
            change = "exit" if turn % 2 == 0 else "enter"
            rig.sandbox.post("lytics/moves", [{"uid": "u7", "audience": "vip", "change": change}])
            send(rig, entrances(30, first=turn * 30, audience="newsletter"))
            assert receiver.post(entrances(1)) == 200
            assert without_cause(channel) == []
            time.sleep(0.5)
        rig.wait_until_empty(60)
        well(rig)
        status = status_of(rig)

    assert without_cause(channel) == []
    assert (status["dead"], status["quarantined"]) == (0, 0)
    assert {one["state"] for one in status["jobs"].values()} == {"done"}


def without_cause(channel):
    """Return what was told for no reason: a reader that gets no processor loses its claim."""
    is_busy = patient(1) > 1
    return [one for one in channel.told() if not (is_busy and one.startswith("job_interrupted"))]


def backfill(rig, number):
    """Read a file of people into Redis, as a job of its own."""
    rows = rig.folder / f"rows-{number}.ndjson"
    people = (f"reader{number}-{one}@example.com" for one in range(300))
    rows.write_bytes(b"\n".join(orjson.dumps({"email": email}) for email in people))
    job = ("--audience", "newsletter", "--as-of", "now", "--job", f"load-{number}")
    run(rig, "backfill", "start", str(rows), *job)


@pytest.mark.nightly
def test_deploys_edits_of_templates_and_restarts_send_no_message(tmp_path, channel, receiver):
    """In each round nobody works for the seconds that a worker needs to start."""
    more = receiver.table() + channel.table("attention")
    templates = {TEMPLATE: SHIPPED}
    with Rig(tmp_path, delivery_lines=SHORT, more=more, templates=templates) as rig:
        template, source = tmp_path / "templates" / TEMPLATE, rig.settings.source
        workers = [start_worker(rig), start_worker(rig)]
        receiving = receiver.start(rig)
        well(rig)
        with again_and_again(lambda: receiver.post(entrances(1)), 0.5):
            for number in range(DEPLOYS):
                source.write_text(f"{source.read_text()}\n# deploy {number}\n")
                for partition, older in enumerate(workers):
                    workers[partition] = start_worker(rig)
                    stop_worker(older)
                stop_worker(receiving)
                receiving = receiver.start(rig)
                template.write_text(f"{SHIPPED}\n// edit {number}\n")
                for one in workers:
                    stop_worker(one)
                workers = [start_worker(rig), start_worker(rig)]
        rig.wait_until_empty(60)

    assert channel.told() == []
