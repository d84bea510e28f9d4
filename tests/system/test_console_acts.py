"""Failures that are found at the console, mended, and seen to end, by keys only.

Outside the console happens only what nobody could do in it: a machine that answers again, a key
that is put right, a file that is mended, a worker that is started. Every act there is gets done.
"""

import itertools
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from segrelay.ops.console.acts import ACTS
from segrelay.producer.publish import Publisher
from segrelay.worker.contract.settings import load_settings
from tests.configuration import insider, lytics, table, trigger
from tests.journeys.console.console_world import TEMPLATE, World, event
from tests.journeys.health.staging import MEMBERS
from tests.journeys.play import SHORT, start_worker
from tests.system.console_page import ConsolePage
from tests.waiting import until

FILE = "insider/enter.jsonnet"
REASON = "somebody looked"
SYNC = "".join(
    [
        table("operate", live_within="3s"),
        lytics("SANDBOX"),
        table("sync.vips", audience="vip", every="8s"),
        table(
            "authorizations.second",
            headers={"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "second"},
        ),
        insider("second", base_url="SANDBOX", authorization="second", rate="600/min"),
        trigger("second", destination="second", audiences=["newsletter"], template=FILE),
    ]
)


LEAVERS = "document.querySelectorAll('.people li').length"
LETTERS = "document.querySelector('td[data-label=letters]')?.innerText"


class Person:
    """A person at the console who has no mouse, with the failures that are staged meanwhile."""

    def __init__(self, world, page):
        self.world, self.page = world, page
        self.acts = set()
        self._numbers = itertools.count()

    def use(self, selector):
        """Go to a link, a button or a field by Tab, and use it."""
        self.page.leaving()
        self.page.focus_on(selector)
        if not self.page.evaluate("document.activeElement.matches('input')"):
            self.page.press("Enter")

    def open(self, letter, address):
        """Open a page of the menu."""
        self.page.leaving()
        self.page.press("g", letter)
        self.page.until_at(address)

    def looks(self, letter, address, text):
        """Open a page of the menu again and again until it has a text."""
        until(lambda: self.open(letter, address) or text in self.page.text())

    def enter(self, count, **fields):
        """Publish people who enter, each of them once, into an audience that no sync follows."""
        people = [next(self._numbers) for _ in range(count)]
        some = {"slug": "cart-abandoners"} | fields
        self.world.publish([event(f"e{n}@example.com", **some) for n in people])

    def names(self):
        """Return the problems that the first page names."""
        return self.page.evaluate(
            "[...document.querySelectorAll('.problems strong')].map((one) => one.innerText)"
        )

    def finds(self, problem):
        """Look at the first page until it names a problem."""
        self.open("n", "/")
        until(lambda: problem in self.names())

    def sees_the_end_of(self, problem):
        """Look at the first page until it does not name the problem any more."""
        self.open("n", "/")
        until(lambda: problem not in self.names())

    def asks(self, selector):
        """Use a button that leads to the page of an act."""
        self.use(selector)
        self.page.until_at("/act?")
        self.acts |= set(parse_qs(urlsplit(self.page.path()).query)["act"])

    def mends(self, selector, **fields):
        """Use a button of an act, fill in its form, and wait for the end of the act."""
        self.asks(selector)
        for name, text in {"why": REASON, **fields}.items():
            self.use(f"main #{name}")
            self.page.type(text)
        self.use("form.ask button")
        said = self.page.until_over()
        assert "\ndone\n" in said.replace(" by ", "\n"), said
        return said


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    with World(folder, syncs=SYNC, delivery_lines=SHORT) as world:
        world.sandbox.post("lytics/profiles", MEMBERS)
        world.start_console()
        with ConsolePage(folder / "profile", world) as page:
            page.shape()
            page.go("/")
            yield Person(world, page)


def test_a_worker_that_is_missing(person):
    person.finds("no worker")

    start_worker(person.world)

    person.sees_the_end_of("no worker")
    until(lambda: len(person.world.memberships()) == len(MEMBERS))


def test_a_trigger_that_was_paused_and_forgotten(person):
    person.open("n", "/")
    person.mends("a[href*='act=pause'][href$='trigger%3Aexit']")
    person.finds("trigger paused")
    assert REASON in person.page.text()

    person.mends(".problems a[href*='act=resume']")

    person.sees_the_end_of("trigger paused")


def test_a_destination_that_is_down(person):
    person.world.sandbox.settings(error_shares={"503": 1.0})
    person.enter(20)
    person.finds("destination broken")

    person.world.sandbox.settings(error_shares={})
    person.mends("a[href*='act=resume'][href*='destination%3Ainsider']")

    person.sees_the_end_of("destination broken")
    until(lambda: person.world.waiting() == 0)


def test_a_template_that_does_not_parse(person):
    path = person.world.folder / "templates" / FILE
    path.write_text("{ users: [")
    until(lambda: person.enter(1) or "template refused" in person.names())

    person.use(".problems a[href='/status']")
    person.page.until_at("/status")
    assert "the file was changed and is broken" in person.page.text()

    path.write_text(TEMPLATE)
    person.open("n", "/")
    until(lambda: person.enter(1) or "template refused" not in person.names())


def test_dead_letters_are_replayed_once_their_cause_is_gone(person):
    person.world.sandbox.settings(failures=[{"status": 413, "contains": "users"}])
    person.enter(30)
    person.finds("dead letters grow")

    person.world.sandbox.settings(failures=[])
    person.use(".problems a[href='/letters']")
    person.page.until_at("/letters")
    assert "too_large" in person.page.text()
    person.mends("td a[href*='dlq+replay']")

    person.sees_the_end_of("dead letters grow")
    person.looks("d", "/letters", "There is no dead letter.")


def test_dead_letters_that_nobody_needs(person):
    person.world.sandbox.settings(failures=[{"status": 413, "contains": "users"}])
    person.enter(3)
    until(lambda: person.world.waiting() == 0)
    person.world.sandbox.settings(failures=[])
    until(lambda: person.open("d", "/letters") or person.page.evaluate(LETTERS) == "3")

    said = person.mends("td a[href*='dlq+discard']", count="3")

    assert "--at-most=3" in said
    assert "discarded\n3" in said


def test_a_canary_that_waits(person):
    told = start_job(person, "first", "--canary", "5")
    assert "The canary was delivered." in told
    person.finds("job at canary")

    person.mends(".problems a[href*='backfill+resume']")

    person.sees_the_end_of("job at canary")
    person.open("j", "/jobs")
    person.use("a[href='/jobs/first']")
    until(lambda: "100 % settled" in person.page.text())


def start_job(person, name, *options):
    """Bring people into an audience that no sync follows: it would take them out again."""
    file = person.world.folder / f"{name}.csv"
    file.write_text("email\n" + "".join(f"{name}{n}@example.com\n" for n in range(40)))
    words = ("--audience", "cart-abandoners", "--as-of", "now", "--job", name)
    done = person.world.command("backfill", "start", str(file), *words, *options)
    assert b"read: " in done.stdout, done.stderr
    return done.stdout.decode()


def test_a_job_that_was_paused_and_one_that_is_not_wanted(person):
    person.open("n", "/")
    person.mends("a[href*='act=pause'][href*='destination%3Ainsider']")
    start_job(person, "second")
    start_job(person, "third")
    person.looks("j", "/jobs", "third")
    person.mends("a[href*='backfill+pause'][href*='second']")
    person.open("j", "/jobs")
    assert "discarded\n40" in person.mends("a[href*='backfill+abort'][href*='third']", count="40")
    person.finds("destination paused")
    person.mends(".problems a[href*='act=resume']")
    person.finds("job paused")

    person.mends(".problems a[href*='backfill+resume']")

    person.sees_the_end_of("job paused")
    until(lambda: person.world.waiting() == 0)


def test_a_sync_that_lytics_refuses(person):
    person.world.sandbox.settings(lytics={"error_shares": {"401": 1.0}})
    person.finds("sync fails")

    person.world.sandbox.settings(lytics={"error_shares": {}})
    person.use(".problems a[href='/jobs']")
    person.page.until_at("/jobs")
    person.use("a[href='/syncs/vips']")
    person.page.until_at("/syncs/vips")
    person.asks("main a[href*='sync+run']")
    person.use("main #why")
    person.page.type(REASON)
    person.use("form.ask button")
    person.page.until_over()

    person.sees_the_end_of("sync fails")


def confirms(person):
    person.page.go("/syncs/vips")
    try:
        return "confirmed\n200" in person.mends("main a[href*='sync+confirm']", count="200")
    except AssertionError:
        assert "that waits" in person.page.text()
        return False


def test_a_sync_that_would_take_out_too_many(person):
    moves = [{"uid": f"u{n}", "audience": "vip", "change": "exit"} for n in range(200)]
    person.world.sandbox.post("lytics/moves", moves)
    person.finds("sync waits")

    person.use(".problems a[href='/syncs/vips']")
    person.page.until_at("/syncs/vips")
    until(lambda: person.page.evaluate(LEAVERS) == 200 or person.page.go("/syncs/vips") != 200)
    assert "@" not in person.page.text()
    # A run that begins meanwhile is another one: whoever has seen the one before looks anew.
    until(lambda: confirms(person), 60)

    person.sees_the_end_of("sync waits")
    until(lambda: not any(f"p{n}@example.com" in person.world.memberships() for n in range(200)))


def test_events_of_an_audience_that_gets_known(person):
    entry = {"id": "a7", "event": "enter", "enter": "2026-11-29T10:00:00Z"}
    people = [{"email": f"q{n}@example.com", "segment_events": [entry]} for n in range(12)]
    person.world.publish([orjson.dumps({"data": one}) for one in people])
    person.finds("quarantine grows")
    done = person.world.command("audience", "set", "a7", "newsletter")
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    person.use(".problems a[href='/quarantine']")
    person.page.until_at("/quarantine")
    said = person.mends("main a[href*='quarantine+replay']")

    assert "placed\n12" in said


def test_events_that_nobody_wants(person):
    person.enter(4, slug="vpi")
    person.looks("q", "/quarantine", "vpi")

    assert "discarded\n4" in person.mends("main a[href*='quarantine+discard']", count="4")

    person.sees_the_end_of("quarantine grows")


def test_deliveries_whose_trigger_is_gone(person):
    former = person.world.folder / "former.toml"
    text = person.world.settings.source.read_text()
    former.write_text(text.replace("[triggers.enter]", "[triggers.entered]"))
    settings = load_settings(former, environ={})
    Publisher(person.world.client, settings).publish([event("o1@example.com")])
    person.finds("orphaned")
    person.open("w", "/waiting")
    assert "discarded\n1" in person.mends("td a[href*='act=discard'][href*='entered']", count="1")
    person.sees_the_end_of("orphaned")


def test_a_redis_that_came_back_empty(person):
    world = person.world
    world.kill_redis()
    for file in world.settings.redis.data_dir.rglob("appendonly*.*"):
        file.unlink()
    world.start_redis()
    person.page.sign_in_here()  # who was signed in is forgotten, too
    person.finds("redis emptied")

    person.mends(".problems a[href*='redis+acknowledge']")

    person.sees_the_end_of("redis emptied")


def test_no_act_was_forgotten(person):
    assert person.acts == set(ACTS)
