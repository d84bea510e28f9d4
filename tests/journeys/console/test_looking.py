"""Pages of the console that compare: a person's bodies, and Insider."""

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


def test_what_insider_holds_is_masked_unless_a_revealer_gives_a_reason(world, ann, bob):
    path = page_of(bob, "p1@example.com")
    before = len([act for act in read_acts(world.client) if act.what == "reveal"])

    masked = bob.post(path).text
    without = ann.post(path).text
    refused = bob.post(path, reason="curious")
    shown = ann.post(path, reason="ticket 8").text

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
