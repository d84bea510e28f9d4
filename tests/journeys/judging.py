"""What journeys ask of the judgement of health: is a failure named, and is all well afterwards?"""

import orjson

from segrelay.ops.metrics.page import MetricsPage
from segrelay.ops.status.health import read_problems
from segrelay.ops.status.problems import ILL
from segrelay.sandbox.people import Happening
from segrelay.worker.contract.settings import load_settings
from tests.journeys.play import AN_HOUR_AGO_US, lines
from tests.metrics_comparison import parse_metrics, sum_metric
from tests.waiting import allowed, until

NAMED_SECONDS = 240
WELL_SECONDS = allowed(30)


def glimpsed(rig, *, attention=False):
    """Return the names of the problems in this process: a command would take ten times as long."""
    settings = load_settings(rig.settings.source, environ={})
    problems = read_problems(rig.client, settings)
    return {one.name for one in problems if attention or one.severity == ILL}


def judged(rig):
    """Return the exit code of `status --check`, and its problems by name."""
    answer = rig.command("status", "--check", "--json")
    found = orjson.loads(answer.stdout)
    return answer.returncode, {one["name"]: one for one in found["problems"]}


def ill_of(rig, name):
    """Wait until a problem is there, and its alert has something to fire for; returns it."""

    def found():
        code, problems = judged(rig) if name in glimpsed(rig) else (0, {})
        return problems[name] if code == 1 and name in problems else None

    problem = until(found, NAMED_SECONDS)
    assert alerting(rig, name) > 0, problem
    return problem


def alerting(rig, name):
    """Return the metric of a problem, by which its alert fires."""
    settings = load_settings(rig.settings.source, environ={})
    page = parse_metrics(MetricsPage(rig.client, settings).text().decode())
    return sum_metric(page, "segrelay_problems", name=name)


def well(rig):
    """Wait until nothing is wrong."""
    until(lambda: not glimpsed(rig) and judged(rig) == (0, {}), WELL_SECONDS)


def entrances(count, first=0, audience="vip"):
    """Return payloads of people who enter an audience."""
    people = (f"person{number}@example.com" for number in range(first, first + count))
    return lines(
        [Happening(one, audience, is_exit=False, time_us=AN_HOUR_AGO_US) for one in people]
    )
