"""The invented people: what holds in the end, and what each profile says at its time."""

import random

from segrelay.sandbox.people import (
    Happening,
    invented_person,
    reevaluations,
    truth,
)
from segrelay.worker.destinations.normalise import country, language, phone


def test_at_equal_times_the_exit_holds_in_any_order():
    enter = Happening("ann@example.com", "vip", is_exit=False, time_us=1)
    leave = Happening("ann@example.com", "vip", is_exit=True, time_us=1)

    assert truth([enter, leave]) == truth([leave, enter]) == {}


def test_invented_people_are_like_real_ones():
    people = [invented_person(number) for number in range(5_000)]

    wrong = sum(phone(person["phone"], "US") is None for person in people)
    foreign = sum(not person["first_name"].isascii() for person in people)
    assert 50 < wrong < 150
    assert 150 < foreign < 350
    assert all(country(person["visit_country"]) for person in people)
    assert all(language(person["user_language"]) for person in people)
    assert {len(person) for person in people} == {29}
    assert people[:9] == [invented_person(number) for number in range(9)]


def test_whoever_is_reevaluated_enters_and_leaves_all_audiences_within_a_moment():
    audiences = [f"a{number}" for number in range(10)]

    rounds = reevaluations(random.Random(1), rounds=40, people=20, audiences=audiences)

    assert [len(each) for each in rounds] == [10] * 40
    assert all({event.email for event in each} == {each[0].email} for each in rounds)
    assert all(each[-1].time_us - each[0].time_us < 10_000 for each in rounds)
    entering, leaving = (
        [e.is_exit for each in half for e in each] for half in (rounds[:20], rounds[20:])
    )
    assert 0 < sum(entering) < 60
    assert 140 < sum(leaving) < 200
