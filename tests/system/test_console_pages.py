"""The console as a person sees it, in a real Chromium: every page, wide and narrow, light and dark.

axe looks at each for what WCAG 2.2 AA asks: names, labels, contrast, order of headings.

SEGRELAY_PICTURES names a folder for the pictures that README and docs/ have of it.
"""

import math
import os
import time
from pathlib import Path

import orjson
import pytest

from segrelay.ops.console import command
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.worker.contract import keys
from tests.journeys.console.console_world import REFUSED, World, event, words
from tests.system.console_page import NARROW, WIDE, ConsolePage
from tests.waiting import until

PICTURES = os.environ.get("SEGRELAY_PICTURES", "")
DEAD = 34
HIGHEST = 1_500
PAGES = {
    "now": "/",
    "letters": "/letters",
    "quarantine": "/quarantine",
    "waiting": "/waiting",
    "jobs": "/jobs",
    "status": "/status",
    "tap": "/tap",
    "audit": "/audit",
    "people": "/people",
    "login": "/login",
    "missing": "/letters/of-nobody",
}
LINKED = {
    "letter": ("/letters", "a[href^='/letters/insider.']"),
    "person": ("/tap", "td a[href^='/people/']"),
    "record": ("/quarantine", "th a[href^='/quarantine/']"),
    "act": ("/letters", "a.button[href*='dlq+discard']"),
    "job": ("/jobs", "a[href^='/jobs/']"),
    "sync": ("/jobs", "a[href^='/syncs/']"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("seen"), console_lines='secret = "seals sessions"') as it:
        export = it.folder / "exports" / "vip.csv"
        export.parent.mkdir()
        export.write_text("email\ns1@example.com\ns2@example.com\n")
        os.utime(export, (time.time() - 600,) * 2)
        it.start_worker("--concurrency=1")
        it.wait_until_ready()
        it.start_console()
        it.publish([event(f"p{n}@example.com", first_name="Ann") for n in range(400)])
        it.publish([event(f"p{n}@{REFUSED}") for n in range(DEAD)])
        it.publish([event(f"v{n}@example.com", slug="vipp") for n in range(12)])
        it.settle(delivered=402, dead=DEAD)
        give_an_hour(it)
        file = it.folder / "members.csv"
        file.write_text("email\n" + "".join(f"j{n}@example.com\n" for n in range(80)))
        options = ("--audience", "vip", "--as-of", "now", "--job", "november", "--canary", "20")
        assert it.command("backfill", "start", str(file), *options).returncode == 0
        assert it.command("pause", "trigger:exit", "--why", "prices change").returncode == 0
        it.publish([event(f"w{n}@example.com", way="exit") for n in range(25)])
        yield it


def give_an_hour(world):
    """Add the samples of an hour before this one, so that there is something to plot."""
    end_ms = int(time.time() * 1_000) - 10_000
    delivered, dead, asked = 402, DEAD, 40_000
    samples = []
    for number in range(350):
        counts = {
            "delivered|enter": delivered,
            "settled": delivered + dead,
            "dead|enter|template_error": dead,
            "waits": round(20 + number * (1 + math.sin(number / 30)) / 2),
            "requests": delivered // 9,
            "asked|ms": asked,
            "asked|1": delivered // 10,
            "asked|2": delivered // 90 - number % 11,
        }
        at_ms = end_ms - number * 10_000
        samples.append(orjson.dumps({"at_ms": at_ms, "counts": {"insider": counts}}))
        more = round(60 + 40 * math.sin(number / 25) + number % 7)
        delivered, asked = delivered - more, asked - more // 9 * (90 + number % 11)
        dead -= number % 50 == 10
    world.client.rpush(keys.PROGRESS, *samples)
    for number, text in enumerate(samples):
        at_ms = end_ms - number * 900_000
        samples[number] = orjson.dumps(orjson.loads(text) | {"at_ms": at_ms})
    world.client.rpush(keys.WEEK, *samples)


@pytest.fixture(scope="module")
def page(world, tmp_path_factory):
    with ConsolePage(tmp_path_factory.mktemp("profile"), world) as it:
        yield it


def test_no_page_is_left_out():
    named = {"/letters/{id}": "letter", "/people/{digest}": "person", "/quarantine/{id}": "record"}
    named |= {
        "/jobs/{name}": "job",
        "/syncs/{name}": "sync",
        "/act": "act",
        "/acts/{key}": "started",
    }
    looked_at = {**PAGES, **LINKED, "started": "/acts"}

    for page in command.PAGES:
        assert page.path in PAGES.values() or named[page.path] in looked_at


def address(page, world, name):
    if name in PAGES:
        return world.url + PAGES[name]
    if name == "started":
        page.shape()
        page.go("/act?act=dlq+replay")
        page.click("form.inline button")
        assert "Go on to the act" in page.until_over()
        return world.url + page.path()
    start, link = LINKED[name]
    page.open(world.url + start)
    return page.evaluate(f'document.querySelector("{link}").href')


@pytest.mark.parametrize("name", [*PAGES, *LINKED, "started"])
def test_every_page_fits_has_labels_and_contrast_wide_and_narrow_light_and_dark(world, page, name):
    where = address(page, world, name)

    for width in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            page.shape(width, scheme)
            assert page.open(where) == (404 if name == "missing" else 200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
            assert page.violations() == "", (width, scheme)
            keep(page, name, width, scheme)


def keep(page, name, width, scheme):
    """Write a picture of the whole page if there is a folder for pictures."""
    if PICTURES:
        height = page.evaluate("document.documentElement.scrollHeight")
        page.shape(width, scheme, min(height, HIGHEST))
        (Path(PICTURES) / f"{name}-{width}-{scheme}.png").write_bytes(page.picture())


def test_the_head_of_a_column_sorts_its_table_and_it_stays_sorted(world, page):
    def bring(job):
        options = PublishOptions(job=job)
        Publisher(world.client, world.settings).publish([event(f"{job}@example.com")], options)
        until(lambda: job in page.evaluate(names))

    names = "[...document.querySelectorAll('#jobs tbody th')].map((one) => one.innerText).join()"
    page.shape()
    page.open(f"{world.url}/jobs")
    bring("december")

    page.click("#jobs thead button")
    page.click("#jobs thead button")
    assert page.evaluate(names) == "november,december"

    bring("may")
    assert page.evaluate(names) == "november,may,december"


def test_the_first_page_follows_without_being_loaded_anew(world, page):
    page.shape()
    page.open(world.url)
    page.evaluate("window.isTheSame = true")
    accepted = page.evaluate("document.querySelector('.balance dd').innerText")

    world.publish([event("new@example.com", slug="newsletter")])

    until(lambda: page.evaluate("document.querySelector('.balance dd').innerText") != accepted)
    assert page.evaluate("window.isTheSame")


def test_selected_text_stays_and_a_lost_redis_is_told(world, page):
    page.open(world.url)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#balance'))")
    page.evaluate("window.part = document.querySelector('#balance')")
    world.publish([event("other@example.com", slug="newsletter")])
    page.evaluate("new Promise((done) => setTimeout(done, 5000))")
    assert page.evaluate("window.part.isConnected")
    page.evaluate("getSelection().removeAllRanges()")
    until(lambda: page.evaluate("!window.part.isConnected"))

    world.kill_redis()
    try:
        until(lambda: "Redis can't be reached" in page.text())
        assert "accepted" in page.text()
    finally:
        world.start_redis()
    until(lambda: page.evaluate("document.getElementById('stale').hidden"))


def test_a_console_that_was_killed_is_told_and_found_again(world, page):
    page.go("/")
    page.evaluate("window.isTheSame = true")

    world.console.kill()
    world.console.wait()
    until(lambda: "The console can't be reached" in page.text())
    assert "accepted" in page.text()
    world.start_console()

    until(lambda: page.evaluate("document.getElementById('stale').hidden"))
    assert page.evaluate("window.isTheSame")


def test_keys_are_shown_and_find_a_person(world, page):
    page.open(world.url)

    page.press("?")
    assert page.evaluate("document.getElementById('keys').open")
    assert page.violations() == ""
    page.evaluate("document.getElementById('keys').close()")
    page.press("/")
    page.type("p1@example.com")
    page.press("Enter")
    page.until_at("/people/")

    assert "p1@" not in page.path()
    assert "next step" in page.text()


def test_without_script_a_page_can_be_read(world, tmp_path):
    with ConsolePage(tmp_path / "profile", world) as page:
        page.ask("Emulation.setScriptExecutionDisabled", value=True)
        page.open(f"{world.url}/letters")
        text = page.ask("DOM.getDocument", depth=0)
        html = page.ask("DOM.getOuterHTML", nodeId=text["root"]["nodeId"])["outerHTML"]

    assert "Dead letters" in words(html)
