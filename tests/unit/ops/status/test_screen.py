"""The screen of `status --watch`, on a terminal of 80 columns and 24 lines."""

import io

import pytest
from rich.console import Console, Group

from segrelay.ops.status.screen import StatusScreen
from segrelay.ops.status.totals import ProgressMeter
from segrelay.worker.contract.words import lane_of_job

COUNTS = dict.fromkeys(("accepted", "delivered", "skipped", "dead", "discarded", "waiting"), 0)
WIDTH, HEIGHT = 80, 24


def trigger(**given):
    return COUNTS | {"state": "ok", "reason": "", "destination": "insider"} | given


def job(**given):
    return COUNTS | {"state": "delivering", "reason": "", "rows": 0, "expected_rows": 0} | given


def problem(name, subject="", severity="ill"):
    message = "everything dies of one cause (3f2a91c0): " + "and so on " * 20
    return {"name": name, "subject": subject, "severity": severity, "message": message}


def document(**given):
    return (
        COUNTS
        | {
            "requests": 10,
            "open_notes": 0,
            "oldest_waiting_seconds": None,
            "problems": [],
            "destinations": {
                "insider": {"state": "ok", "reason": "", "rate": 25_000.0, "factor": 1.0}
            },
            "lanes": {},
            "triggers": {"vip-enter": trigger(delivered=1_234)},
            "jobs": {},
        }
        | given
    )


def paced(*documents):
    pace = ProgressMeter()
    for second, one in enumerate(documents):
        pace.look(one, float(second))
    return pace


def shown(last, *before, width=WIDTH, height=HEIGHT):
    """Return the lines that a terminal shows."""
    console = Console(
        record=True, width=width, height=height, file=io.StringIO(), force_terminal=True
    )
    screen = StatusScreen(last, paced(*before, last), height - 1)
    console.print(Group(*screen.drawn()))
    return console.export_text().splitlines()


CROWD = document(
    problems=[problem("trigger_paused", f"trigger-{n:03}") for n in range(20)],
    destinations={
        f"destination-with-a-long-name-{n}": {
            "state": "broken",
            "reason": "it can't be reached " * 10,
            "rate": 25_000.0,
            "factor": 0.25,
        }
        for n in range(9)
    },
    lanes={
        name: {"waiting": 1_000_000, "oldest_seconds": 86_400 * 3}
        for name in ("live", "backfill", lane_of_job("load"), lane_of_job("other"))
    },
    triggers={f"trigger-{n:03}": trigger(waiting=n) for n in range(400)},
    jobs={f"november-{n}": job(waiting=10_000_000) for n in range(12)},
    oldest_waiting_seconds=86_400 * 3,
    waiting=123_456_789,
    accepted=123_456_789_012,
    delivered=123_000_000_000,
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 16), (60, 24), (200, 60)])
def test_a_crowd_fits_the_screen(width, height):
    lines = shown(CROWD, CROWD, width=width, height=height)

    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width


def test_problems_stand_on_top_and_what_does_not_fit_is_counted():
    lines = shown(CROWD)

    assert lines[2].startswith("! trigger_paused trigger-000: everything dies of one cause")
    assert "… and 16 more problems: segrelay status" in lines
    assert any("more destinations" in line for line in lines)
    assert any("more jobs" in line for line in lines)
    assert lines[-1].endswith("more triggers: segrelay status")


def test_rates_lanes_gate_and_triggers_are_on_it():
    before = document(requests=10)
    now = document(
        accepted=500,
        delivered=200,
        waiting=300,
        requests=14,
        oldest_waiting_seconds=7.0,
        lanes={
            "live": {"waiting": 100, "oldest_seconds": 1.0},
            lane_of_job("load"): {"waiting": 200, "oldest_seconds": 7.0},
        },
        triggers={"vip-enter": trigger(delivered=1_434, waiting=300)},
    )

    text = "\n".join(shown(now, before))

    assert "accepted 500 +500/s  delivered 200 +200/s  waiting 300" in text
    assert "requests 14 +4/s" in text
    assert "oldest 7 s" in text
    assert "lanes  live 100 (oldest 1 s)   jobs 200" in text
    assert "All is well." in text
    assert any(line.split()[:4] == ["insider", "ok", "25,000", "100%"] for line in text.split("\n"))
    assert any(
        line.split() == ["vip-enter", "ok", "300", "1,434", "0", "200"] for line in text.split("\n")
    )


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        pytest.param({"waiting": 60_000, "delivered": 1_000}, "in 60 s", id="waiting"),
        pytest.param(
            {
                "waiting": 60_000,
                "delivered": 1_000,
                "state": "reading",
                "rows": 1,
                "expected_rows": 120_001,
            },
            "in 3 minutes",
            id="not read yet",
        ),
        pytest.param({"waiting": 60_000}, "not known", id="standing still"),
        pytest.param({"waiting": 0, "delivered": 1_000}, "-", id="nothing left"),
    ],
)
def test_a_job_says_when_it_ends(given, ends):
    before = document(jobs={"load": job(waiting=61_000)})

    (line,) = [
        line for line in shown(document(jobs={"load": job(**given)}), before) if "load" in line
    ]

    assert line.endswith(ends)


def test_jobs_that_have_ended_take_no_room():
    lines = shown(document(jobs={"old": job(state="done"), "older": job(state="aborted")}))

    assert not any("old" in line for line in lines)


def test_what_a_terminal_would_obey_is_written_as_its_escape():
    lines = shown(document(problems=[problem("x", "\x1b]0;title\x07")]))

    assert not any("\x1b" in line or "\x07" in line for line in lines)
