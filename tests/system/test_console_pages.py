"""The console as a person sees it, in a real Chromium: every page, wide and narrow, light and dark.

SEGRELAY_PICTURES names a folder for the pictures that README and docs/ have of it.
"""

import math
import os
import time
from pathlib import Path

import orjson
import pytest

from segrelay.worker.contract import keys
from tests.journeys.console.world import PASSWORD, REFUSED, World, event, words
from tests.journeys.play import status_of
from tests.system.chromium import Chromium
from tests.waiting import until

PICTURES = os.environ.get("SEGRELAY_PICTURES", "")
DEAD = 34
WIDE, NARROW = 1280, 375
HIGHEST = 1_500
PAGES = {
    "now": "/",
    "letters": "/letters",
    "quarantine": "/quarantine",
    "waiting": "/waiting",
    "jobs": "/jobs",
    "templates": "/templates",
    "template": "/templates/insider/enter.jsonnet",
    "tap": "/tap",
    "audit": "/audit",
    "people": "/people",
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
    with World(tmp_path_factory.mktemp("seen")) as it:
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
        assert it.command("pause", "trigger:exit", "--reason", "prices change").returncode == 0
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
        }
        at_ms = end_ms - number * 10_000
        samples.append(orjson.dumps({"at_ms": at_ms, "counts": {"insider": counts}}))
        more = round(60 + 40 * math.sin(number / 25) + number % 7)
        delivered, asked = delivered - more, asked - more // 9 * (90 + number % 11)
        dead -= number % 50 == 10
    world.client.rpush(keys.PROGRESS, *samples)


@pytest.fixture(scope="module")
def page(world, tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as it:
        sign_in(it, world)
        yield it


def sign_in(page, world):
    page.open(f"{world.url}/login")
    page.evaluate(
        "document.getElementById('name').value = 'ann';"
        f"document.getElementById('password').value = '{PASSWORD}';"
        "document.querySelector('main form').requestSubmit()"
    )
    until(lambda: page.evaluate("!!document.querySelector('nav')"))


def shape(page, width, scheme, height=860):
    page.ask(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=False,
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.ask("Emulation.setEmulatedMedia", features=[feature])


def address(page, world, name):
    if name in PAGES:
        return world.url + PAGES[name]
    start, link = LINKED[name]
    page.open(world.url + start)
    return page.evaluate(f'document.querySelector("{link}").href')


CONTRASTS = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest('.over, .skip, svg')) continue;
    const [one, other] = [luminance(parse(getComputedStyle(node).color)), luminance(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.add(`${node.tagName}.${node.className}: ${ratio.toFixed(2)}`);
  }
  return [...found];
})()
"""
UNNAMED = """
[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
  .filter((one) => !one.labels.length && !one.getAttribute('aria-label'))
  .map((one) => one.outerHTML)
"""
"""Fields without a label."""


@pytest.mark.parametrize("name", [*PAGES, *LINKED])
def test_every_page_fits_has_labels_and_contrast_wide_and_narrow_light_and_dark(world, page, name):
    where = address(page, world, name)

    for width in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            shape(page, width, scheme)
            assert page.open(where) == 200
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
            assert page.evaluate(CONTRASTS) == [], (width, scheme)
            assert page.evaluate(UNNAMED) == []
            assert page.evaluate("document.querySelectorAll('h1').length") == 1
            keep(page, name, width, scheme)


def keep(page, name, width, scheme):
    """Write a picture of the whole page if there is a folder for pictures."""
    if PICTURES:
        height = page.evaluate("document.documentElement.scrollHeight")
        shape(page, width, scheme, min(height, HIGHEST))
        (Path(PICTURES) / f"{name}-{width}-{scheme}.png").write_bytes(page.picture())


def press(page, *keys):
    for key in keys:
        code = {"Enter": 13, "Tab": 9}.get(key, ord(key[0].upper()))
        text = {"text": "\r"} if key == "Enter" else {} if len(key) > 1 else {"text": key}
        given = {"key": key, "windowsVirtualKeyCode": code}
        page.ask("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        page.ask("Input.dispatchKeyEvent", type="keyUp", **given)


def path(page):
    return page.evaluate("location.pathname + location.search")


def until_at(page, begin):
    until(
        lambda: path(page).startswith(begin) and page.evaluate("document.readyState") == "complete"
    )


def focus_on(page, text):
    """Go by Tab until something with this text has the focus."""
    focused = "(document.activeElement.innerText || document.activeElement.id || '')"
    for _ in range(80):
        if page.evaluate(focused).strip() == text:
            return
        press(page, "Tab")
    raise AssertionError(f"No Tab leads to {text!r}.")


def test_letters_are_discarded_by_keyboard_only(world, page):
    shape(page, WIDE, "light")
    page.open(world.url)

    press(page, "g", "d")
    until_at(page, "/letters")
    focus_on(page, "Discard")
    press(page, "Enter")
    until_at(page, "/act?act=dlq+discard")
    page.ask("Input.insertText", text="of no use")
    focus_on(page, "count")
    page.ask("Input.insertText", text=str(DEAD))
    press(page, "Enter")
    until_at(page, "/acts/")
    until(lambda: page.evaluate("!!document.querySelector('[data-over]')"))

    assert f"discarded\n{DEAD}" in page.text()
    assert status_of(world)["discarded"] == DEAD


def test_the_first_page_follows_without_being_loaded_anew(world, page):
    shape(page, WIDE, "light")
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


def test_keys_are_shown_and_find_a_person(world, page):
    page.open(world.url)

    press(page, "?")
    assert page.evaluate("document.getElementById('keys').open")
    page.evaluate("document.getElementById('keys').close()")
    press(page, "/")
    page.ask("Input.insertText", text="p1@example.com")
    press(page, "Enter")
    until_at(page, "/people/")

    assert "p1@" not in path(page)
    assert "What was delivered last" in page.text()


def test_without_script_a_page_can_be_read(world, tmp_path):
    with Chromium(tmp_path / "profile") as page:
        sign_in(page, world)
        page.ask("Emulation.setScriptExecutionDisabled", value=True)
        page.open(f"{world.url}/letters")
        text = page.ask("DOM.getDocument", depth=0)
        html = page.ask("DOM.getOuterHTML", nodeId=text["root"]["nodeId"])["outerHTML"]

    assert "Dead letters" in words(html)
