"""Hostile texts as text, and a path below a proxy: every link of every page is followed."""

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from segrelay.ops.console.rights import hash_password
from tests.configuration import trigger
from tests.integration.ops.console.conftest import OWN, PROXY, browser_at
from tests.integration.ops.relay import EXIT, LYTICS, payload
from tests.journeys.console.console_world import HOSTILE, PASSWORD, REFUSED, TEMPLATE, words
from tests.waiting import until

PREFIX = "/relay/console"
ID = re.compile(r"/[^/]*[0-9][^/]*")
PAGES_OF_A_KIND = 3
"""Pages whose addresses differ by an id, or by what a parameter says, have the same links."""
BAD = ("<script>alert", "\x1b", "\u202e")


class Addresses(HTMLParser):
    """The addresses on a page: of links and files, and of forms."""

    def __init__(self, text):
        super().__init__()
        self.links, self.forms = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        self.forms += [given["action"]] if tag == "form" and "action" in given else []


@pytest.fixture
def below(served):
    """Return the console's application below a prefix."""
    return lambda **section: served(public_url=OWN["Origin"] + PREFIX, **section)


@pytest.fixture
def hostile(relay, sandbox, call, monkeypatch):
    """Let each kind of page have a hostile text to show."""
    monkeypatch.setenv("SEGRELAY_ACTOR", "ann")
    hers = trigger("vip-enter", audiences=["vip"], template="enter.jsonnet")
    relay.template("enter.jsonnet", TEMPLATE)
    relay.configure(EXIT + LYTICS.format(url=sandbox.url), triggers=hers)
    named = {"first_name": HOSTILE}
    relay.deliver(payload("p0@example.com", **named), payload(f"p1@{REFUSED}", **named))
    relay.publish(payload("h@x.example", HOSTILE))
    sandbox.settings(failures=[{"status": 400, "contains": "users", "message": HOSTILE}])
    relay.publish(payload("a0@example.com"))
    relay.drain_all()
    assert call("pause", "vip-exit", "--why", HOSTILE).exit_code == 0
    relay.publish(payload("w@example.com", direction="exit", last_name=HOSTILE), job="november")


def pages_of(browser, first):
    """Yield each page that links lead to, with its answer; links must not lead elsewhere."""
    waiting, known, kinds = [first], {first}, Counter()
    while waiting:
        path = waiting.pop()
        answer = browser.get(path)
        yield path, answer
        if "text/html" not in answer.headers["content-type"]:
            continue
        found = Addresses(answer.text)
        for address in found.links + found.forms:
            if address.startswith("#"):
                continue
            target = urljoin(path, address)
            assert not urlsplit(target).netloc, (path, address)
            assert target.startswith(PREFIX), (path, address)
        for address in found.links:
            target = urljoin(path, address).partition("#")[0]
            url = urlsplit(target)
            kind = (ID.sub("/ID", url.path), *sorted(parse_qs(url.query)))
            if target not in known and kinds[kind] < PAGES_OF_A_KIND:
                kinds[kind] += 1
                known.add(target)
                waiting.append(target)


@pytest.mark.usefixtures("hostile")
def test_every_link_stays_below_the_prefix_and_hostile_texts_are_texts_also_revealed(below):
    with browser_at(below(proxy=PROXY)) as browser:
        seen = {}
        for path, answer in pages_of(browser, f"{PREFIX}/"):
            assert answer.status_code == 200, path
            assert not [bad for bad in BAD if bad in answer.text], path
            assert not re.search(r"[a-z0-9]@[a-z]", answer.text), path
            seen[path] = answer.text
        letters = [path for path in seen if "/letters/insider." in path]
        shown = "".join(browser.post(one, data={"reason": "ticket 8"}).text for one in letters)

    text = "".join(seen.values())
    assert len(seen) > 30
    assert "&lt;script&gt;alert(1)" in text
    assert "\\x1b[31m\\u202e" in text
    assert f"p1@{REFUSED}" in shown
    assert not [bad for bad in BAD if bad in shown]


@pytest.mark.usefixtures("call")
@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["taken off", "left"])
def test_a_session_and_an_act_stay_below_the_prefix(below, prefix):
    users = {"ann": {"password": hash_password(PASSWORD), "roles": ["operator"]}}
    application = below(users=users, secret="seals sessions")
    cookies, own = {}, {name: text for name, text in OWN.items() if name != "X-Forwarded-User"}

    def answered(method, address, **form):
        """Ask as a browser does whose proxy takes the prefix off, or leaves it."""
        with browser_at(application, **own, cookie="; ".join(cookies)) as browser:
            path = prefix + address.removeprefix(PREFIX)
            return browser.request(method, path, data=form or None)

    signed_in = answered("POST", f"{PREFIX}/login?next=/letters", name="ann", password=PASSWORD)
    assert signed_in.headers["location"] == f"{PREFIX}/letters"
    assert f"Path={PREFIX}" in signed_in.headers["set-cookie"]
    cookies[signed_in.headers["set-cookie"].partition(";")[0]] = ""

    act = answered("POST", f"{PREFIX}/act", act="pause", name="vip-enter", why=HOSTILE)
    assert act.headers["location"].startswith(f"{PREFIX}/acts/")
    at = act.headers["location"]
    page = until(lambda: "data-over" in (shown := answered("GET", at).text) and shown, 60)
    assert "done" in words(page)
    assert not [bad for bad in BAD if bad in page + answered("GET", f"{PREFIX}/audit").text]
    assert answered("POST", f"{PREFIX}/logout").headers["location"] == f"{PREFIX}/login"
    assert answered("GET", f"{PREFIX}/letters").status_code == 303
