"""A worker that begins has sent nothing, and its first events are delivered like all others."""

from segrelay.sandbox.people import Happening
from tests.journeys.play import (
    AN_HOUR_AGO_US,
    Rig,
    await_ready,
    lines,
    nothing_is_wrong,
    publish,
)

PEOPLE = 12


def test_what_a_worker_does_before_its_first_event_reaches_nobody(tmp_path):
    happened = [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=AN_HOUR_AGO_US + n)
        for n in range(PEOPLE)
    ]
    broken = {"insider/exit.jsonnet": "{ users: ["}
    with Rig(tmp_path, templates=broken) as rig:
        worker = rig.start_worker("--concurrency=2")
        await_ready(rig, worker)
        assert rig.sandbox.get("summary")["requests"]["total"] == 0
        assert rig.counts() == {}

        for one in happened:
            publish(rig, lines([one]))
            rig.wait_until_empty(30)

        nothing_is_wrong(rig, happened)
        requests = rig.sandbox.get("summary")["requests"]["total"]
        assert requests <= PEOPLE, "each request carries an event that was accepted"
        assert b"warming.failed" not in rig.worker_log(0).read_bytes()
