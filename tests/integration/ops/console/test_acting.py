"""Acts at the console and what they need, who sees whose data, and what attacks it."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from segrelay.ops.console.acting import started
from segrelay.ops.console.acts import ACTS, StartedCommand
from segrelay.ops.console.app import Asked, Console
from segrelay.ops.console.command import MENU, PAGES
from segrelay.ops.console.look import Look
from segrelay.ops.console.rights import Person, Rights
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings.sections import ConsoleSettings
from tests.configuration import trigger
from tests.integration.ops.console.conftest import PROXY, browser_at, ended
from tests.integration.ops.relay import EXIT, payload
from tests.journeys.console.console_world import MENDED, REFUSED, TEMPLATE, words
from tests.waiting import allowed

DEAD = 3


@pytest.fixture
def letters(relay, call):
    """Let some die of the template, and one be quarantined; return the pages of the letters."""
    del call  # commands that are started have its configuration
    relay.template("enter.jsonnet", TEMPLATE)
    relay.configure(
        EXIT, triggers=trigger("vip-enter", audiences=["vip"], template="enter.jsonnet")
    )
    relay.publish(payload("x@example.com", audience="vipp"))
    relay.deliver(*(payload(f"p{n}@{REFUSED}") for n in range(DEAD)))
    assert relay.status()["dead"] == DEAD
    found = (relay.client.hkeys(one.dead_letters) for one in relay.partitions())
    return [f"/letters/{name.decode()}" for names in found for name in names]


def start(browser, command, **form):
    """Start an act; return the address of its page."""
    answer = browser.post("/act", data={"act": command, "why": "a test", **form})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def role(served, *roles, name="vic"):
    return browser_at(
        served(proxy=PROXY | {"roles": ["viewer", *roles]}), **{"X-Forwarded-User": name}
    )


@pytest.mark.usefixtures("call")
def test_pausing_and_resuming_is_done_once_by_the_command_and_is_in_the_audit(
    console, served, relay
):
    first, second = (start(console, "pause", name="vip-exit", once="abc") for _ in range(2))
    paused = ended(console, first)
    at_once = words(console.get("/").text)
    with browser_at(served(proxy=PROXY)) as other:
        elsewhere, gone = words(other.get("/").text), other.get(first)
    resumed = ended(console, start(console, "resume", name="vip-exit"))

    assert first == second
    assert "vip-exit paused a test (by ann)" in at_once
    assert "vip-exit paused a test (by ann)" in elsewhere
    assert (gone.status_code, "does not know how that command stands" in gone.text) == (404, True)
    assert "segrelay pause vip-exit" in paused
    assert "done" in words(resumed)
    acts = [(act.what, act.by, act.reason) for act in read_acts(relay.client)]
    assert acts == [("resume", "ann", "a test"), ("pause", "ann", "a test")]
    assert "resume" in words(console.get("/audit?by=ann").text)


@pytest.mark.usefixtures("letters")
def test_what_can_not_be_undone_asks_for_its_number(console, relay):
    for count in ("", "many"):
        refused = console.post("/act", data={"act": "dlq discard", "why": "no", "count": count})
        assert (refused.status_code, "Nothing was done" in refused.text) == (403, True)
    too_few = words(ended(console, start(console, "dlq discard", count=DEAD - 1)))
    assert "refused by ann" in too_few
    assert f"It would be {DEAD} letters" in too_few
    assert relay.status()["dead"] == DEAD
    said = ended(console, start(console, "quarantine discard", audience="vipp", count="1"))
    assert "discarded 1" in words(said)


def test_a_page_says_that_a_command_is_over_only_with_its_output(relay):
    command = StartedCommand("key", "", ACTS["pause"], {"name": ["insider"]}, "ann", False)
    known = SimpleNamespace(find=lambda _key: command)
    console = Console(Look(relay.client, relay.settings), Rights(ConsoleSettings()), MENU, known)

    page = started(console, Asked(Person("ann"), {"key": "key"}, {}))
    command.document, command.code = {"paused": True}, 0

    assert "data-over" not in console.render(page, None, "/acts/key")


def test_a_dry_run_of_a_viewer_says_what_a_replay_would_do_and_changes_nothing(
    served, relay, letters
):
    with role(served) as vic:
        shown = words(vic.get(letters[0], params={"try": "1"}).text)
        page = words(ended(vic, start(vic, "dlq replay", trigger="vip-enter", dry_run="1")))

    assert "enter.jsonnet:6" in shown
    assert "With today's template it would be dead" in shown
    assert page.index("Go on to the act") < page.index(f"would be dead {DEAD}")
    assert "--trigger=vip-enter --dry-run" in page
    assert relay.status()["dead"] == DEAD


@pytest.mark.usefixtures("letters")
def test_two_operators_replay_the_same_letters_at_once(served, relay):
    relay.template("enter.jsonnet", MENDED)

    def replay(name):
        with role(served, "operator", name=name) as browser:
            return words(ended(browser, start(browser, "dlq replay", trigger="vip-enter")))

    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(replay, ("ann", "bob")))

    relay.drain_all()
    counts = [act.count for act in read_acts(relay.client) if act.what == "dlq replay"]
    assert all("done" in page for page in pages)
    assert sum(filter(None, counts)) == DEAD == relay.status()["delivered"]


def test_only_a_revealer_sees_who_it_is_and_the_audit_has_it(console, served, relay, letters):
    record = re.search(r'href="(/quarantine/[^"?]+)"', console.get("/quarantine").text)[1]
    person = console.post("/people", data={"person": f"p1@{REFUSED}"}).headers["location"]
    with role(served, "operator") as vic:
        for path in (letters[0], record, person):
            answer = vic.post(path, data={"reason": "curious"})
            assert (answer.status_code, "revealer" in answer.text) == (403, True)
            assert not re.search(r"[a-z0-9]@[a-z]", answer.text + vic.get(path).text), path

    without, shown = (console.post(letters[0], data={"reason": why}) for why in (" ", "ticket 7"))

    assert (without.status_code, f"@{REFUSED}" in shown.text) == (403, True)
    (act,) = [act for act in read_acts(relay.client) if act.what == "reveal"]
    assert (act.by, act.reason) == ("ann", "ticket 7")
    assert act.subject == f"letter {letters[0].rpartition('/')[2]}"


def test_other_sites_post_nowhere_and_every_answer_has_the_headers_that_keep_them_out(console):
    posts = (re.sub(r"\{.*?\}", "x", page.path) for page in PAGES if page.takes_posts)
    for address in (*posts, "/login", "/logout"):
        answer = console.post(address, headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, "says cross-site" in answer.text) == (403, True), address

    listed = (page.path for page in PAGES if "{" not in page.path and page.path != "/act")
    for path in (*listed, "/nowhere", "/static/console.css"):
        headers = console.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_tap_shows_how_deliveries_ended_without_anybodys_data(console, relay):
    relay.deliver(payload("q@example.com", first_name="<b>"))

    shown = console.get("/tap", params={"person": digest_of("email:q@example.com").hex()}).text

    assert "delivered 200" in words(shown)
    assert 'href="/people/' in shown
    assert "q@" not in shown
    assert "no trigger nobody" in console.get("/tap?trigger=nobody").text
    assert "A person is a digest here" in console.get(f"/tap?person={quote('q@x.com')}").text


def test_without_redis_pages_say_so_in_time_and_nobody_signs_in(served):
    with closing(connect("redis://127.0.0.1:9", timeout_seconds=1.0)) as client:
        one = browser_at(served(client, proxy=PROXY))
        answer, login = one.get("/"), one.get("/login")
        entered = one.post("/login", data={"name": "ann", "password": "x"})

    assert (answer.status_code, "Redis can" in answer.text) == (503, True)
    assert answer.elapsed.total_seconds() < allowed(5)
    assert login.status_code == 200
    assert (entered.status_code, "set-cookie" in entered.headers) == (503, False)
