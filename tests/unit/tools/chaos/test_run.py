"""What a run invents: people of many audiences, and whose events reach segrelay together."""

from collections import defaultdict
from pathlib import Path

from tools.chaos.plan import MANY_AUDIENCES, Plan
from tools.chaos.run import ChaosRun


def test_a_quarter_of_the_people_enter_and_leave_ten_audiences():
    plan = Plan(events=10_000, people=1_000)

    happened = ChaosRun(plan, Path(), print).happened

    directions = defaultdict(set)
    for event in happened:
        if event.audience in MANY_AUDIENCES:
            directions[event.email, event.audience].add(event.is_exit)
    assert len(happened) == plan.events
    assert len({email for email, _ in directions}) == plan.people // 4
    assert len(directions) == 10 * plan.people // 4
    assert sum(each == {True, False} for each in directions.values()) > len(directions) / 2
