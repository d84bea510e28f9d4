"""A process that renames somebody and stands still just before it asks Insider."""

import pytest

from segrelay.ops.insider.reader import RENAMES_A_MINUTE, InsiderIdentities, InsiderUnreadable
from segrelay.ops.main import app
from segrelay.ops.person.renaming import IdentityChange, PersonRenaming
from segrelay.worker.errors import OperationsMustAct
from tests.integration.ops.person.test_renamed_person import NEW, OLD
from tests.integration.ops.relay import payload
from tests.journeys.endpoint import Endpoint

LONG = 60.0
CHANGE = IdentityChange(f"email:{OLD}", f"email:{NEW}")
BEFORE_HEADERS = 2
"""The clock is read when Insider is about to be asked, and then before anything is sent."""


class Clock:
    """Stands still for a minute before one of its readings, while something else happens."""

    def __init__(self, stop_at, meanwhile=lambda: None):
        self.readings, self.stopped = 0, 0.0
        self._stop_at, self._meanwhile = stop_at, meanwhile

    def __call__(self):
        self.readings += 1
        if self.readings == self._stop_at:
            self._meanwhile()
            self.stopped = LONG
        return self.stopped


@pytest.fixture
def insider():
    """Counts what it is asked, and does it."""
    with Endpoint(lambda _: (200, {"success": True})) as endpoint:
        yield endpoint


@pytest.fixture
def rename_with(relay, insider):
    def rename(clock):
        relay.publish(payload(OLD))
        destination = relay.settings.destinations["insider"]
        there = destination.model_copy(update={"base_url": insider.url})
        with InsiderIdentities(relay.settings, there, a_minute=RENAMES_A_MINUTE) as identities:
            return PersonRenaming(
                relay.client,
                relay.settings,
                {"insider": identities},
                lambda key: {"email": key.partition(":")[2]},
                boottime=clock,
            ).run([CHANGE])

    return rename


def test_insider_is_not_asked_by_somebody_who_stood_still_while_others_went_on(
    call, insider, rename_with
):
    clock = Clock(BEFORE_HEADERS, lambda: call(app, "rename", "person", OLD, NEW))

    with pytest.raises(OperationsMustAct, match="Somebody else renames the same people"):
        rename_with(clock)

    assert insider.came == []


def test_who_stood_still_asks_later_if_nobody_went_on(insider, rename_with):
    clock = Clock(BEFORE_HEADERS)

    (receipt,) = rename_with(clock)

    assert receipt.outcome == "renamed"
    assert [came.method for came, _ in insider.came] == ["PATCH"]
    assert clock.readings > BEFORE_HEADERS + 1


def test_headers_that_were_sent_in_time_are_no_request_without_their_body(insider, rename_with):
    clock = Clock(BEFORE_HEADERS + 1)

    (receipt,) = rename_with(clock)

    assert receipt.outcome == "renamed"
    assert [came.method for came, _ in insider.came] == ["PATCH"]


def test_a_process_that_stands_still_again_and_again_says_so(insider, rename_with):
    with pytest.raises(InsiderUnreadable, match="stood still"):
        rename_with(iter_clock())

    assert insider.came == []


def iter_clock():
    """Return a clock that goes a minute on with each reading."""
    now = [0.0]

    def clock():
        now[0] += LONG
        return now[0]

    return clock
