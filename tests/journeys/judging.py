"""What journeys ask of the judgement of health: is a failure named, and is all well afterwards?"""

import orjson

from ops.invented.events import Happening
from tests.journeys.play import lines
from tests.waiting import allowed, until

NAMED_SECONDS = allowed(15)
WELL_SECONDS = allowed(30)


def judged(rig):
    """Return the exit code of `status --check`, and its problems by name."""
    answer = rig.command("status", "--check", "--json")
    found = orjson.loads(answer.stdout)
    return answer.returncode, {one["name"]: one for one in found["problems"]}


def ill_of(rig, name):
    """Wait until a problem is there; returns it."""

    def found():
        code, problems = judged(rig)
        return problems[name] if code == 1 and name in problems else None

    return until(found, NAMED_SECONDS)


def well(rig):
    """Wait until nothing is wrong."""
    until(lambda: judged(rig) == (0, {}), WELL_SECONDS)


def entrances(count, first=0, audience="vip"):
    """Return payloads of people who enter an audience."""
    at_us = 1_700_000_000_000_000
    people = (f"person{number}@example.com" for number in range(first, first + count))
    return lines([Happening(one, audience, is_exit=False, time_us=at_us) for one in people])
