"""The screen of `status --watch`, on a terminal of 80 columns and 24 lines."""

import io
from pathlib import Path

import pytest
from rich.console import Console, Group

from segrelay.ops.status.pace import ProgressMeter
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.screen import StatusScreen
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    JobStanding,
    Standing,
    TriggerStanding,
)
from segrelay.ops.status.totals import Counts, LaneWait, Totals
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER
from segrelay.worker.contract.words import lane_of_job

NOW = 1_800_000_000_000
LANES = ("live", "backfill", lane_of_job("load"), lane_of_job("other"))
WIDTH, HEIGHT = 80, 24


def trigger(**given):
    return TriggerStanding(Condition(TRIGGER), "insider", Counts(**given))


def job(state="delivering", rows=0, expected_rows=0, **given):
    counts = Counts(**given)
    return JobStanding(Condition(JOB, state), counts, rows, expected_rows, {"insider": counts})


def destination(state="ok", message="", factor=1.0):
    condition = Condition(DESTINATION, state, "", message)
    return DestinationStanding(condition, 25_000.0, factor, Totals().requests_of("insider"), 0)


def problem(name, subject="", severity="ill"):
    message = "everything dies of one cause (3f2a91c0): " + "and so on " * 20
    return HealthProblem(name, severity, subject, message, "segrelay status")


def lanes(**given):
    """Return totals of what waits: by lane, how many and for how many seconds."""
    waits = {name: LaneWait(count, NOW - 1_000 * age) for name, (count, age) in given.items()}
    return Totals(now_ms=NOW, lanes=waits)


def standing(*, totals=None, destinations=None, triggers=None, jobs=None, **given):
    return Standing(
        Settings.empty(Path("/nowhere")),
        NOW,
        Counts(**({"requests": 10} | given)),
        totals or lanes(),
        destinations or {"insider": destination()},
        triggers or {"vip-enter": trigger(delivered=1_234)},
        jobs or {},
    )


def paced(*looks):
    pace = ProgressMeter()
    for second, one in enumerate(looks):
        pace.look(one, float(second))
    return pace


def shown(last, *before, problems=(), width=WIDTH, height=HEIGHT):
    """Return the lines that a terminal shows."""
    console = Console(
        record=True, width=width, height=height, file=io.StringIO(), force_terminal=True
    )
    screen = StatusScreen(last, problems, paced(*before, last), height - 1)
    console.print(Group(*screen.drawn()))
    return console.export_text().splitlines()


PROBLEMS = [problem("trigger_paused", f"trigger-{n:03}") for n in range(20)]
CROWD = standing(
    destinations={
        f"destination-with-a-long-name-{n}": destination(
            "broken", "it can't be reached " * 10, 0.25
        )
        for n in range(9)
    },
    totals=lanes(**dict.fromkeys(LANES, (1_000_000, 86_400 * 3))),
    triggers={f"trigger-{n:03}": trigger(waiting=n) for n in range(400)},
    jobs={f"november-{n}": job(waiting=10_000_000) for n in range(12)},
    waiting=123_456_789,
    accepted=123_456_789_012,
    delivered=123_000_000_000,
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 16), (60, 24), (200, 60)])
def test_a_crowd_fits_the_screen(width, height):
    lines = shown(CROWD, CROWD, problems=PROBLEMS, width=width, height=height)

    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width


def test_problems_stand_on_top_and_what_does_not_fit_is_counted():
    lines = shown(CROWD, problems=PROBLEMS)

    assert lines[2].startswith("! trigger_paused trigger-000: everything dies of one cause")
    assert "… and 16 more problems: segrelay status" in lines
    assert any("more destinations" in line for line in lines)
    assert any("more jobs" in line for line in lines)
    assert lines[-1].endswith("more triggers: segrelay status")


def test_rates_lanes_gate_and_triggers_are_on_it():
    before = standing(requests=10)
    now = standing(
        accepted=500,
        delivered=200,
        waiting=300,
        requests=14,
        totals=lanes(**{"live": (100, 1), lane_of_job("load"): (200, 7)}),
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
    before = standing(jobs={"load": job(waiting=61_000)})

    (line,) = [
        line for line in shown(standing(jobs={"load": job(**given)}), before) if "load" in line
    ]

    assert line.endswith(ends)


def test_a_job_ends_when_its_slowest_destination_has_everything():
    def two(delivered):
        slow, quick = (
            Counts(waiting=60_000, delivered=delivered),
            Counts(waiting=10, delivered=9 * delivered),
        )
        at = {"slow": slow, "quick": quick}
        return JobStanding(Condition(JOB, "delivering"), Counts(waiting=60_010), 0, 0, at)

    shown_lines = shown(standing(jobs={"load": two(100)}), standing(jobs={"load": two(0)}))

    assert next(line for line in shown_lines if "load" in line).endswith("in 10 minutes")


def test_jobs_that_have_ended_take_no_room():
    lines = shown(standing(jobs={"old": job(state="done"), "older": job(state="aborted")}))

    assert not any("old" in line for line in lines)


def test_a_cause_is_shown_whole_and_with_its_command_before_lines_stay_blank():
    lines = shown(standing(), problems=[problem("no_worker", "insider")])

    told = " ".join(" ".join(lines).split())
    assert told.count("and so on") == 20
    assert any(line.startswith("→ segrelay status") for line in lines)
    assert len(shown(CROWD, problems=PROBLEMS)) <= HEIGHT


def test_what_a_terminal_would_obey_is_written_as_its_escape():
    lines = shown(standing(), problems=[problem("x", "\x1b]0;title\x07")])

    assert not any("\x1b" in line or "\x07" in line for line in lines)
