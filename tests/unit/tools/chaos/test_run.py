"""What a run invents: people of many audiences, and whose events reach segrelay together."""

from collections import defaultdict
from pathlib import Path

from segrelay.sandbox.people import Happening
from tools.chaos.changes import NEW, OLD, RenamedAudience
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


def test_what_happened_in_a_renamed_audience_counts_for_its_new_name():
    event = Happening("a@example.com", OLD, is_exit=False, time_us=1)
    other = Happening("a@example.com", "vip", is_exit=False, time_us=2)
    renamed = RenamedAudience(None, None, [event, other])

    assert renamed.in_new_words([event, other]) == [event, other]
    renamed.is_renamed = True
    assert [each.audience for each in renamed.in_new_words([event, other])] == [NEW, "vip"]
