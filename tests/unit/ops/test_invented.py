"""The invented people: what holds in the end, and what each profile says at its time."""

import random

from ops.invented import Happening, happenings, lists, truth


def test_at_equal_times_the_exit_holds_in_any_order():
    enter = Happening("ann@example.com", "vip", is_exit=False, time_us=1)
    leave = Happening("ann@example.com", "vip", is_exit=True, time_us=1)

    assert truth([enter, leave]) == truth([leave, enter]) == {}


def test_the_last_list_of_everybody_is_the_truth():
    happened = happenings(random.Random(1), events=500, people=20, ties=0.2)
    newest = {}
    for event in sorted(happened, key=lambda each: (each.time_us, each.is_exit)):
        newest[event.email] = event

    found = lists(happened)

    held = {email: found[event] for email, event in newest.items() if found[event]}
    assert held == truth(happened)
