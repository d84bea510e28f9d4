"""Pages that compare: a dead letter's body with that of a replay, and a person with Insider."""

import re

from segrelay.worker.contract.redis.acts import read_acts
from tests.integration.ops.console.conftest import PROXY, browser_at
from tests.integration.ops.relay import payload
from tests.journeys.console.console_world import words


def page_of(browser, email):
    return browser.post("/people", data={"person": email}).headers["location"]


def test_a_dead_letters_body_stands_beside_that_of_a_replay_and_what_differs_is_marked(
    console, relay, sandbox
):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(payload("q@example.com", first_name="poisoned"))
    text = relay.shipped("enter.jsonnet")
    named = text.replace('event.get("first_name")', '"Dr. " + event.get("first_name")')
    relay.template("enter.jsonnet", named)
    assert named != text
    person = console.get(page_of(console, "q@example.com")).text
    path = re.search(r'href="(/letters/insider[^"?]+)', person)[1]

    first = console.get(path).text
    page = console.get(path, params={"try": "1"}).text
    shown = console.post(path, data={"reason": "ticket 9"}).text

    assert "data-later=" in first
    assert "<mark>" not in first
    assert "With today's template it would be sent" in words(page)
    assert len(re.findall(r"<mark>.*name.*•••.*</mark>", page)) == 2
    assert "poisoned" not in page
    assert "Dr. poisoned" in shown


def test_what_insider_holds_is_masked_unless_a_revealer_gives_a_reason(console, served, relay):
    relay.deliver(payload("p@example.com", first_name="Name1"))
    operator = browser_at(served(proxy=PROXY | {"roles": ["operator"]}))
    path = page_of(operator, "p@example.com")

    masked, without = operator.post(path).text, console.post(path).text
    refused = operator.post(path, data={"reason": "curious"})
    assert not [act for act in read_acts(relay.client) if act.what == "reveal"]
    shown = console.post(path, data={"reason": "ticket 8"}).text

    for page in (masked, without):
        assert "as in the ledger" in words(page)
        assert "name •••" in words(page)
        assert "Name1" not in page
    assert refused.status_code == 403
    assert "name Name1" in words(shown)
    [act] = [act for act in read_acts(relay.client) if act.what == "reveal"]
    assert (act.by, act.reason) == ("ann", "ticket 8")


def test_the_page_of_a_job_has_its_plan(console, call, tmp_path):
    rows = tmp_path / "members.csv"
    rows.write_text("email\nj@example.com\n")
    call("backfill", "start", rows, "--audience", "vip", "--as-of", "now", "--job", "november")

    page, unknown = console.get("/jobs/november"), console.get("/jobs/december")

    assert f"Plan from {rows} begun" in words(page.text)
    assert (unknown.status_code, "There is no such job." in unknown.text) == (404, True)
