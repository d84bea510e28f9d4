"""People of whom only the quarantine knows."""

import pytest

from tests.integration.ops.console.conftest import PROXY, browser_at
from tests.integration.ops.relay import payload
from tests.journeys.console.world import words


@pytest.fixture(autouse=True)
def quarantined(relay):
    relay.configure(triggers="")
    relay.publish(payload("ann@example.com", audience="typo", user_id="u-17"))
    relay.publish(payload("", user_id="u-18"))


def test_whoever_stands_in_the_quarantine_has_a_page(console):
    found = console.post("/people", data={"person": "Ann@example.com"})

    page = words(console.get(found.headers["location"]).text)

    assert "Nothing is known" not in page
    assert "typo - quarantined" in page
    assert "The last event (of typo) came, and could not be placed" in page
    assert "ann@" not in page


def test_whoever_has_no_identity_there_is_found_as_a_record(console):
    found = console.post("/people", data={"person": "u-18"})

    assert "no_identity" in words(console.get(found.headers["location"]).text)


def test_only_a_revealer_finds_records_by_other_fields(console, served, relay):
    relay.configure()
    relay.publish(payload("cat@example.com", user_id="u-19"))
    viewer = browser_at(served(proxy=PROXY | {"roles": ["viewer", "operator"]}))

    def found(by, typed):
        return by.post("/people", data={"person": typed}).status_code

    assert (found(viewer, "u-18"), found(console, "u-18")) == (404, 303)
    assert (found(viewer, "u-19"), found(console, "user_id:u-19")) == (404, 404)
    assert found(viewer, "cat@example.com") == 303
