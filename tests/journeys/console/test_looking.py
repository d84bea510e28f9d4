"""Pages of the console that compare and sort: a person's bodies, Insider, templates, tables."""

import re

import pytest

from segrelay.worker.contract.redis.acts import read_acts
from tests.journeys.console.world import TEMPLATE, World, event, words

NAMED = TEMPLATE.replace('event.get("first_name")', '"Dr. " + event.get("first_name")')
PATH = "insider/enter.jsonnet"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("looking")) as it:
        it.sandbox.settings(poison="poisoned", poison_status=200)
        it.start_worker("--concurrency=1")
        it.wait_until_ready()
        it.start_console()
        it.publish([event(f"p{n}@example.com", first_name=f"Name{n}") for n in range(3)])
        it.publish([event(f"q{n}@example.com", first_name="poisoned") for n in range(3)])
        it.settle(delivered=3, dead=3)
        it.stop_workers()
        it.publish([event(f"w{n}@example.com", first_name="Wendy") for n in range(4)])
        yield it


@pytest.fixture(scope="module")
def ann(world):
    return world.sign_in("ann")


@pytest.fixture(scope="module")
def bob(world):
    return world.sign_in("bob")


@pytest.fixture
def named(world):
    """Put `Dr.` before names."""
    folder = world.folder / "templates"
    (folder / PATH).write_text(NAMED)
    yield
    (folder / PATH).write_text(TEMPLATE)


def page_of(browser, email):
    return browser.post("/people", person=email).headers["location"].removeprefix(browser.url)


def columns(page, label):
    """Return what stands in one column of a table."""
    found = re.findall(rf'data-label="{label}">(.*?)</t[dh]>', page, re.DOTALL)
    return [words(each) for each in found]


@pytest.mark.usefixtures("named")
def test_a_dead_letters_body_stands_beside_that_of_a_replay_and_what_differs_is_marked(ann, bob):
    person = bob.get(page_of(bob, "q0@example.com")).text
    path = re.search(r'href="(/letters/insider[^"?]+)', person)[1]

    first = bob.get(path).text
    page = bob.get(path, **{"try": "1"}).text
    shown = ann.post(path, reason="ticket 9").text

    assert "data-later=" in first
    assert "<mark>" not in first
    assert "With today's template it would be sent" in words(page)
    assert len(re.findall(r"<mark>.*name.*•••.*</mark>", page)) == 2
    assert "poisoned" not in page
    assert "Dr. poisoned" in shown


@pytest.mark.usefixtures("named")
def test_what_waits_is_tried_with_the_present_template(bob):
    page = bob.get(f"{page_of(bob, 'w0@example.com')}&try=1").text

    assert "Waiting for enter, lane live: would be sent" in words(page)
    assert "Wendy" not in page


def test_what_insider_holds_is_masked_unless_a_revealer_gives_a_reason(world, ann, bob):
    path = page_of(bob, "p1@example.com")
    before = len([act for act in read_acts(world.client) if act.what == "reveal"])

    masked = bob.post(path, do="verify").text
    without = ann.post(path, do="verify").text
    refused = bob.post(path, do="verify", reason="curious")
    shown = ann.post(path, do="verify", reason="ticket 8").text

    for page in (masked, without):
        assert "as in the ledger" in words(page)
        assert "name •••" in words(page)
        assert "Name1" not in page
    assert refused.status_code == 403
    assert "name Name1" in words(shown)
    assert "vip" in words(shown)
    reveals = [act for act in read_acts(world.client) if act.what == "reveal"]
    assert len(reveals) == before + 1
    assert (reveals[0].by, reveals[0].reason) == ("ann", "ticket 8")


def test_tables_are_sorted_as_their_address_says(bob):
    newest = columns(bob.get("/letters").text, "letter")
    page = bob.get("/letters", sort="died", audience="vip").text
    oldest = columns(page, "letter")

    assert len(newest) == 3
    assert oldest == newest[::-1]
    assert 'aria-sort="ascending"' in page
    assert 'href="/letters?audience=vip&amp;sort=-died"' in page
    assert 'name="sort" value="died"' in page
