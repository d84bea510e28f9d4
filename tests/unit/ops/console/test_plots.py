"""Plots and paces, by the samples that workers keep."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from segrelay.ops.console.pages import plots_of
from segrelay.ops.status.problems import gone_ms
from segrelay.ops.status.standing import Standing
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.settings import Settings


def sample(minute, place="insider", **counts):
    named = {name.replace("_", "|"): count for name, count in counts.items()}
    return Sample(60_000 * minute, {place: named, "other": {"settled": 7, "waits": 1}})


BEFORE = sample(1, requests=10, delivered_enter=40, dead_exit_refused=1, asked_1=10, waits=90)
AFTER = sample(2, requests=30, delivered_enter=70, dead_exit_refused=3, asked_1=24, asked_3=6)


SLOWED = SimpleNamespace(destinations={"insider": SimpleNamespace(rate=40.0, factor=0.5)})


def shown(**scope):
    return {plot["title"]: plot["newest"] for plot in plots_of([BEFORE, AFTER], SLOWED, **scope)}


def test_a_plot_tells_what_grew_between_two_samples():
    assert shown(destination="insider") == {
        "Delivered": "30/min",
        "Dead": "2/min",
        "Waiting": "0",
        "Rate used": "50 %",
        "Answers p50": "100 ms",
        "Answers p95": "500 ms",
    }
    assert shown(trigger="exit") == {"Delivered": "0/min", "Dead": "2/min"}
    assert all("no samples yet" in plot["svg"] for plot in plots_of([AFTER, AFTER], SLOWED))


@pytest.mark.parametrize(
    ("part", "destination", "seconds"),
    [
        ("settled", "insider", 10),
        ("live", "insider", 15),
        ("job|a", "", 30),
        ("jobs", "other", None),
    ],
)
def test_a_backlog_is_gone_at_the_pace_of_the_last_minute(part, destination, seconds):
    samples = [sample(2, settled=130, **{"job|a": 40}), sample(1, settled=10)]
    standing = Standing(Settings.empty(Path("/nowhere")), 0, samples=samples)

    assert gone_ms(standing, 20, part, destination) == (seconds and 1_000 * seconds)
