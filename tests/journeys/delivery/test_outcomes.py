"""Each end of a delivery is in exactly one file, whoever is killed while it is written."""

import random
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime

import duckdb
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.outcomes.reading import read_outcomes
from segrelay.worker.contract.keys import digest_of
from tests.clouds import cloud
from tests.integration.ops.outcomes.world import counted, counts_of, rows_in
from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    send,
    start_worker,
    status_of,
)
from tests.nightly import amount
from tests.s3 import BUCKET, s3_bucket
from tests.waiting import until

EVENTS = amount(1_200, nightly=20_000)
KILLS = amount(4, nightly=40)
OUTCOMES = """
[outcomes]
folder = "{}"
every = "1s"
format = "{}"
"""
STEPS = """
import sys, time
from pathlib import Path
from segrelay.ops.outcomes.writing import writing_for
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import load_settings
settings = load_settings(Path(sys.argv[1]))
client = connect(resolve_url(settings.redis))
while True:
    step = writing_for(client, settings).step()
    time.sleep(0.0 if step.more else 0.05)
"""
"""A process that writes files of outcomes as often as it can."""


def told_of(rows):
    """Return how often each event ended at each trigger, as rows tell it."""
    return Counter(
        (row["person"], row["audience"], row["direction"], _us(row["event_time"]), row["trigger"])
        for row in rows
    )


def _us(text):
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1_000_000)


def happened_at(happened, triggers):
    """Return the same from the events that were sent."""
    found = Counter()
    for one in happened:
        direction = "exit" if one.is_exit else "enter"
        person = digest_of(f"email:{one.email}").hex()
        for trigger in triggers.values():
            if trigger.on == direction and trigger.wants(one.audience):
                found[person, one.audience, direction, one.time_us, trigger.name] += 1
    return found


@pytest.fixture
def objects(request, monkeypatch):
    """Return a function that gives the objects of the place by name; of a folder, none."""
    scheme = request.param
    if scheme == "s3":
        with s3_bucket(monkeypatch) as client:
            yield lambda: objects_of(client)
    elif scheme:
        with cloud(scheme, monkeypatch) as stored:
            yield lambda: {name: blob.content for name, blob in stored.blobs.items()}
    else:
        yield dict


def objects_of(s3):
    """Return the objects of a bucket, by name."""
    found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())
    return {
        one["Key"]: s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in found
    }


@pytest.mark.parametrize(
    ("objects", "place"),
    [
        ("", "outcomes"),
        ("s3", f"s3://{BUCKET}/outcomes"),
        pytest.param("gs", f"gs://{BUCKET}/outcomes", marks=pytest.mark.nightly),
        pytest.param("az", f"az://{BUCKET}/outcomes", marks=pytest.mark.nightly),
    ],
    indirect=["objects"],
)
def test_kills_of_workers_and_writers_lose_no_row_and_double_none(place, objects, tmp_path):
    happened, sent = invent(EVENTS, EVENTS // 6, seed=11)
    rng = random.Random(11)
    parts = [sent[at :: KILLS + 1] for at in range(KILLS + 1)]
    with Rig(
        tmp_path,
        sandbox_settings={"latency_seconds": 0.02},
        delivery_lines=SHORT,
        more=OUTCOMES.format(place, "ndjson"),
    ) as rig:
        worker = start_worker(rig, "--concurrency=2")
        for part in parts[:KILLS]:
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            writer = started_writer(rig)
            until(lambda before=before: status_of(rig)["delivered"] > before, 20)
            time.sleep(rng.uniform(0, 1.5))
            writer.kill()
            writer.wait()
            kill_group(worker)
            worker = start_worker(rig, "--concurrency=2")
        send(rig, lines(parts[KILLS]))
        rig.wait_until_empty(60)
        until(lambda: not read_outcomes(rig.client, rig.settings).unwritten_rows, 60)

        nothing_is_wrong(rig, happened)
        files = objects()
        (rig.folder / "outcomes").mkdir(exist_ok=True)
        for name, content in files.items():
            (rig.folder / "outcomes" / name.rpartition("/")[2]).write_bytes(content)
        rows = rows_in(rig.folder / "outcomes")
        assert len({row["id"] for row in rows}) == len(rows)
        assert counted(rows) == counts_of(status_of(rig))
        assert told_of(rows) == happened_at(happened, rig.settings.triggers)
        assert len(list((rig.folder / "outcomes").glob("*.ndjson"))) > 1
        assert bool(files) == ("://" in place)


def started_writer(rig):
    arguments = [sys.executable, "-c", STEPS, str(rig.settings.source)]
    return subprocess.Popen(arguments, start_new_session=True)


def test_a_query_over_the_files_agrees_with_status(tmp_path):
    happened, sent = invent(EVENTS, EVENTS // 6, seed=12)
    with Rig(tmp_path, exit_events=False, more=OUTCOMES.format("outcomes", "parquet")) as rig:
        start_worker(rig)
        send(rig, lines(sent))
        rig.wait_until_empty(60)
        until(lambda: not read_outcomes(rig.client, rig.settings).unwritten_rows, 60)

        files = duckdb.read_parquet(str(rig.folder / "outcomes" / "*.parquet"))  # noqa: F841
        found = duckdb.sql(
            """SELECT "trigger", outcome, coalesce(reason, ''), sum(counts)::INT
            FROM files GROUP BY ALL"""
        ).fetchall()
        assert {tuple(key): count for *key, count in found} == counts_of(status_of(rig))
        nothing_is_wrong(rig, happened)
