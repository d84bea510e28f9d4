"""Records what a version leaves in Redis amid its work: `python -m tests.releases.record`.

Run it with the released version, once, and keep the file: later versions have to take it over.
"""

import os
import random
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import orjson

from segrelay.sandbox.people import Happening, happenings
from tests.journeys.play import SHORT, Rig, lines, send, start_worker, status_of
from tests.releases.redis_copy import write_copy
from tests.waiting import until

FOLDER = Path(__file__).parent
AS_OF = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
JOINED = [f"person{number}@example.com" for number in range(5_000, 5_060)]
REFUSED = "person9001@example.com"
LINES = "partitions = 4"
FAILS = {"failures": [{"status": 400, "contains": REFUSED}], "latency_seconds": 0.3}


def entrance(email, audience, at_us):
    return Happening(email, audience, is_exit=False, time_us=at_us)


def record(folder: Path) -> Path:
    """Let a system work, end it in the midst, and write what Redis holds; returns the file."""
    happened = happenings(random.Random(18), events=400, people=90)
    at_us = happened[-1].time_us
    first, rest = happened[::2], happened[1::2]
    refused, foreign = (
        entrance(REFUSED, "vip", at_us),
        entrance("person9002@example.com", "new", at_us),
    )
    with Rig(folder, redis_lines=LINES, delivery_lines=SHORT, sandbox_settings=FAILS) as rig:
        worker = start_worker(rig)
        send(rig, lines([*first, refused, foreign]))
        until(lambda: status_of(rig)["dead"] and status_of(rig)["waiting"] == 0, 60)
        assert rig.command("pause", "exit-event", "--reason", "looked at").returncode == 0
        rows = folder / "joined.ndjson"
        rows.write_bytes(b"\n".join(orjson.dumps({"email": email}) for email in JOINED))
        job = ("--audience", "newsletter", "--as-of", AS_OF.isoformat(), "--name", "joined")
        rig.sandbox.settings(latency_seconds=5.0)
        send(rig, lines(rest))
        until(lambda: intents(rig), 30)
        os.killpg(worker.pid, signal.SIGKILL)
        assert rig.command("backfill", "start", str(rows), *job).returncode == 0
        assert rig.command("backfill", "pause", "joined").returncode == 0
        time.sleep(6)  # what was under way is taken, unanswered
        held = rig.memberships()
        joined_us = int(AS_OF.timestamp()) * 1_000_000
        happened += [entrance(email, "newsletter", joined_us) for email in JOINED]
        happened += [refused, foreign]
        path = FOLDER / f"{version('segrelay')}.json.gz"
        told = [[one.email, one.audience, one.is_exit, one.time_us] for one in happened]
        write_copy(rig.client, path, happened=told, held=held)
        return path


def intents(rig):
    return any(rig.client.hlen(place.intents) for place in rig.partitions())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(f"{record(Path(folder))}\n")
