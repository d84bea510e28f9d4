"""People of whom only the quarantine knows."""

from tests.integration.ops.console.conftest import PROXY, browser_at
from tests.integration.ops.relay import payload
from tests.journeys.console.console_world import words


def test_whoever_stands_in_the_quarantine_has_a_page_and_only_a_revealer_finds_other_fields(
    console, served, relay
):
    relay.configure(triggers="")
    relay.publish(payload("ann@example.com", audience="typo", user_id="u-17"))
    relay.publish(payload("", user_id="u-18"))

    def asked(typed, by=console):
        return by.post("/people", data={"person": typed})

    def page_of(typed):
        return words(console.get(asked(typed).headers["location"]).text)

    page = page_of("Ann@example.com")

    assert "Nothing is known" not in page
    assert "typo - quarantined" in page
    assert "The last event (of typo) came, and could not be placed" in page
    assert "ann@" not in page
    assert "no_identity" in page_of("u-18"), "who has no identity is found as a record"
    relay.configure()
    relay.publish(payload("cat@example.com", user_id="u-19"))
    viewer = browser_at(served(proxy=PROXY | {"roles": ["viewer", "operator"]}))
    assert (asked("u-18", viewer).status_code, asked("u-18").status_code) == (404, 303)
    assert (asked("u-19", viewer).status_code, asked("user_id:u-19").status_code) == (404, 404)
    assert asked("cat@example.com", viewer).status_code == 303


def test_why_reads_the_whole_quarantine_and_a_page_says_what_it_left_out(console, relay, call):
    relay.configure(triggers="")
    relay.publish(payload("ann@example.com", audience="typo"))
    relay.publish(*(payload(f"p{number}@example.com", audience="typo") for number in range(1_000)))

    found = console.post("/people", data={"person": "p999@example.com"})

    page = words(console.get(found.headers["location"]).text)
    assert "Not looked at here: the oldest records of the quarantine (1)." in page
    assert "quarantined" in call("why", "ann@example.com").stdout
