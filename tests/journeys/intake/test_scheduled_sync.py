"""Syncs and response streams in real workers: scheduled by the sweep, done by Celery tasks."""

from tests.configuration import trigger
from tests.journeys.health.staging import SYNC
from tests.journeys.play import SHORT, Rig, start_worker
from tests.waiting import until

TELLS = trigger("told", template="insider/enter.jsonnet", response_stream="answers")


def people(numbers):
    return [
        {"_uid": f"u{n:05}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in numbers
    ]


def moves(numbers, change):
    return [{"uid": f"u{n:05}", "audience": "vip", "change": change} for n in numbers]


def answers(rig):
    return rig.sandbox.get("lytics/collect")["records"].get("answers", [])


def test_a_sync_keeps_insider_true_in_the_background(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC + TELLS) as rig:
        rig.sandbox.post("lytics/profiles", people(range(1_500)))
        start_worker(rig)
        start_worker(rig)

        until(lambda: len(rig.memberships()) == 1_500, 60)
        rig.sandbox.post("lytics/moves", moves(range(40), "exit"))
        rig.sandbox.post("lytics/profiles", people(range(2_000, 2_050)))
        inside = {f"p{n}@example.com" for n in [*range(40, 1_500), *range(2_000, 2_050)]}
        until(lambda: set(rig.memberships()) == inside, 60)
        until(lambda: not rig.waiting(), 20)

        assert rig.counts().get("dead|enter", 0) == 0
        told = until(lambda: answers(rig) if len(answers(rig)) >= 1_550 else None, 20)
        assert {record["response"]["outcome"] for record in told} == {"delivered"}
        until(lambda: any("sync.ended" in log.read_text() for log in tmp_path.glob("worker-*.log")))
