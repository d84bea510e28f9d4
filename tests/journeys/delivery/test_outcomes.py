"""Each end of a delivery leaves in exactly one file, whoever is killed while it is written."""

import random
import time
from collections import Counter
from datetime import datetime

from segrelay.ops.demo.rig import kill_group
from segrelay.worker.contract.keys import digest_of
from tests.integration.ops.outcomes.world import counted, counts_of, rows_of
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
from tests.waiting import until

EVENTS = amount(1_200, nightly=20_000)
KILLS = amount(4, nightly=40)


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


def export(rig, number):
    """Begin to export what has not left yet."""
    file = str(rig.folder / f"{number}.ndjson")
    return rig.start_beside("outcomes", "export", file, "--cursor", "warehouse")


def test_kills_of_workers_and_exports_lose_no_row_and_double_none(tmp_path):
    happened, sent = invent(EVENTS, EVENTS // 6, seed=11)
    rng = random.Random(11)
    parts = [sent[at :: KILLS + 1] for at in range(KILLS + 1)]
    with Rig(tmp_path, sandbox_settings={"latency_seconds": 0.02}, delivery_lines=SHORT) as rig:
        worker = start_worker(rig, "--concurrency=2")
        for number, part in enumerate(parts[:KILLS]):
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            until(lambda before=before: status_of(rig)["delivered"] > before, 20)
            writer = export(rig, number)
            time.sleep(rng.uniform(0, 1.5))
            writer.kill()
            writer.wait()
            kill_group(worker)
            worker = start_worker(rig, "--concurrency=2")
        send(rig, lines(parts[KILLS]))
        rig.wait_until_empty(60)
        assert until(lambda: export(rig, KILLS).wait() == 0, 60)

        nothing_is_wrong(rig, happened)
        rows = rows_of(*rig.folder.glob("*.ndjson"))
        assert len({row["id"] for row in rows}) == len(rows)
        assert counted(rows) == counts_of(status_of(rig))
        assert told_of(rows) == happened_at(happened, rig.settings.triggers)
