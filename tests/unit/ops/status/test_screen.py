"""The screen of `status --watch`, on a terminal of 80 columns and 24 lines."""

from dataclasses import replace
from pathlib import Path

import pytest

from segrelay.ops.state.partitions import KINDS, Counts, Totals
from segrelay.ops.status.command import growth_of, screen
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    JobStanding,
    Standing,
    TriggerStanding,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER

NOW = 1_800_000_000_000


def trigger(state="ok", **given):
    return TriggerStanding(Condition(TRIGGER, state), "insider", Counts(**given))


def destination(state="ok", message=""):
    condition = Condition(DESTINATION, state, "", message)
    return DestinationStanding(condition, 25_000.0, 1.0, Totals().requests_of("insider"), 0)


def job(state, waiting):
    return JobStanding(Condition(JOB, state), Counts(waiting=waiting))


FEW = Standing(
    Settings.empty(Path("/nowhere")),
    NOW,
    Counts(accepted=1_234, delivered=1_234),
    destinations={"insider": destination()},
    triggers={"vip-enter": trigger(delivered=1_234)},
)
CROWD = replace(
    FEW,
    counts=Counts(accepted=123_456_789_012, waiting=123_456_789),
    destinations={f"with-a-long-name-{n}": destination("broken", "no " * 99) for n in range(9)},
    triggers={
        f"trigger-{n:03}": trigger("paused" if n == 7 else "ok", waiting=n) for n in range(400)
    },
    jobs={f"november-{n}": job("done" if n < 9 else "reading", 10_000_000) for n in range(12)},
)


def shown(standing, rates=None, width=80, height=24):
    """Return the lines that a terminal of this size shows."""
    return [line for line, _ in screen(standing, rates, height - 1, width)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 16), (60, 24), (200, 60)])
def test_a_crowd_fits_the_screen_and_what_does_not_fit_is_counted(width, height):
    lines = shown(CROWD, width=width, height=height)

    assert len(lines) == height - 1
    assert sum("more lines: segrelay status" in line for line in lines) >= 3


def test_what_needs_somebody_stands_on_top_of_its_part():
    lines = shown(CROWD)

    assert lines[0].startswith("accepted 123,456,789,012 = delivered 0")
    assert any(line.startswith("ill: ") for line in lines[1:6])
    triggers = next(number for number, line in enumerate(lines) if line.startswith("trigger "))
    assert lines[triggers + 1].split()[:2] == ["trigger-007", "paused"]
    assert lines[triggers + 2].split()[:2] == ["trigger-399", "ok"]
    jobs = next(number for number, line in enumerate(lines) if line.startswith("job "))
    assert lines[jobs + 1].startswith("november-9")


def test_a_problem_is_shown_whole_and_with_its_command_before_lines_stay_blank():
    text = "\n".join(shown(FEW))

    assert "no worker has been seen yet" in text
    assert "\n→ segrelay worker" in text
    assert "more lines" not in text


def test_what_a_terminal_would_obey_is_written_as_its_escape():
    lines = shown(replace(FEW, triggers={"\x1b]0;title\x07": trigger()}))

    assert not any("\x1b" in line or "\x07" in line for line in lines)


def test_a_rate_is_what_was_added_a_second_between_the_first_and_the_last_look():
    looks = [(1.0, Counts(accepted=100)), (2.0, Counts()), (3.0, Counts(accepted=400, dead=50))]

    assert growth_of(looks[:1]) is None
    assert growth_of(looks) == dict.fromkeys(KINDS, 0.0) | {"accepted": 150.0, "dead": 25.0}
