"""What the log says about overlaps and about what came again."""

from __future__ import annotations

import orjson
import pytest

from segrelay.sandbox.insider.api import Write
from segrelay.sandbox.insider.journal import CLOSED, Journal, RepeatedFate
from segrelay.sandbox.insider.profiles import Profiles
from segrelay.sandbox.insider.rules import UPSERT, identity_keys

NOW = 1_796_000_000.0


class Log:
    """A journal and the profiles it looks at."""

    def __init__(self, *, track_events: bool = False) -> None:
        self.journal = Journal(track_events=track_events)
        self.profiles = Profiles()

    def begin(self, *users, path=UPSERT, now=NOW):
        keys = [identity_keys(user) for user in users]
        body = orjson.dumps({"users": users})
        request = Write(path, list(users), keys, skip_hook=False)
        return self.journal.begin(request, body, profiles=self.profiles, fault="", now=now)

    def apply(self, flight, *refused, now=NOW):
        self.journal.took_effect(flight, frozenset(refused), now)

    def answer(self, flight, status=200, *, sure=True, now=NOW):
        self.journal.answered(flight, status, now, sure=sure)

    def whole(self, *users, path=UPSERT):
        flight = self.begin(*users, path=path)
        self.apply(flight)
        self.answer(flight)


def user(email, value=1, **custom):
    identifiers = {"email": email} | ({"custom": custom} if custom else {})
    return {"identifiers": identifiers, "attributes": {"age": value}}


def happened(email, *names):
    return {"identifiers": {"email": email}, "events": [{"event_name": name} for name in names]}


ANN, BOB, EVE = (f"{name}@example.com" for name in ("ann", "bob", "eve"))
DEVICE = {"identifiers": {"custom": {"device": "7"}}, "attributes": {"age": 2}}


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ([user(ANN)], [user(BOB)], {"total": 0}),
        ([user(ANN)], [user(ANN)], {"total": 1, "equal": 1, "late": 0}),
        ([user(ANN), user(BOB)], [user(ANN, 2), user(BOB), user(EVE)], {"different": 1}),
        ([user(ANN)], [DEVICE], {"total": 1}),
        ([happened(ANN, "one", "two")], [happened(ANN, "two")], {"total": 1, "equal": 1}),
        ([happened(ANN, "one", "two")], [happened(ANN, "two", "three")], {"different": 1}),
    ],
    ids=["others", "the same", "another value", "the same person", "a part", "another event"],
)
def test_requests_at_once_on_one_profile_overlap(first, second, counts):
    log = Log(track_events=True)
    log.profiles.claim(("email:ann@example.com", "custom.device:7"))

    log.begin(*first)
    log.begin(*second)

    assert log.journal.in_flight == 2
    assert {name: log.journal.overlap_counts.get(name, 0) for name in counts} == counts


def test_a_request_that_takes_effect_late_overlaps_until_then():
    log = Log()
    late = log.begin(user("ann@example.com", 1))
    log.answer(late, CLOSED, sure=False)

    log.whole(user("ann@example.com", 2))
    log.apply(late)
    log.whole(user("ann@example.com", 3))

    (overlap,) = log.journal.overlaps
    assert overlap.late


def test_a_profile_twice_in_a_request_is_counted():
    log = Log()

    log.begin(user("ann@example.com", 1), user("ann@example.com", 2))

    assert log.journal.profiles_twice_in_a_request == 1


@pytest.mark.parametrize(
    ("applied", "status", "sure", "fate"),
    [
        (True, 200, True, RepeatedFate.ANSWERED),
        (True, CLOSED, False, RepeatedFate.UNANSWERED),
        (True, 500, False, RepeatedFate.UNANSWERED),
        (False, 400, False, RepeatedFate.NOT_APPLIED),
        (False, CLOSED, False, RepeatedFate.NOT_APPLIED),
    ],
)
def test_what_comes_again_is_counted_by_what_had_become_of_it(applied, status, sure, fate):
    log = Log()
    first = log.begin(user("ann@example.com"))
    if applied:
        log.apply(first)
    else:
        log.journal.never_takes_effect(first, NOW)
    log.answer(first, status, sure=sure)

    log.begin(user("ann@example.com"))

    assert log.journal.bodies[UPSERT].counts == {fate: 1}
    assert log.journal.entries[UPSERT].counts == {fate: 1}
    assert log.journal.requests_again == {(UPSERT, fate): 1}


def test_an_event_that_came_in_another_user_object_before_came_again():
    log = Log(track_events=True)
    log.whole(happened("a@example.com", "one", "two"))

    log.whole(happened("a@example.com", "two"), happened("b@example.com", "one"))

    assert log.journal.events.counts == {RepeatedFate.ANSWERED: 1}
    assert log.journal.users_with_several_events == 1
