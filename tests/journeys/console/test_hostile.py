"""Hostile texts as text, and a path below a proxy: every link of every page is followed."""

import http.server
import re
import threading
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest

from segrelay.ops.embedded import free_port
from tests.journeys.console.world import (
    HOSTILE,
    PASSWORD,
    REFUSED,
    TEMPLATE,
    Browser,
    World,
    event,
    words,
)
from tests.waiting import until

PREFIX = "/relay/console"
NAME = "<img src=x onerror=alert(3)>.jsonnet"
TRIGGER = f"""
[triggers.hostile]
destination = "insider"
audiences = ["newsletter"]
on = "enter"
template = "insider/{NAME}"
url = "/api/user/v1/upsert"
"""
ID = re.compile(r"/[^/]*[0-9][^/]*")
PAGES_OF_A_KIND = 3
"""Pages whose addresses differ by an id, or by what a parameter says, have the same links."""
BAD = ("<script>alert", "<img src=x", "\x1b", "\u202e")


class Proxy(http.server.ThreadingHTTPServer):
    """Serves a console below a prefix, which it takes off or not."""

    def __init__(self, upstream, *, takes_off):
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream, self.takes_off = upstream, takes_off
        self.url = f"http://127.0.0.1:{self.server_port}"


class Passing(http.server.BaseHTTPRequestHandler):
    def pass_on(self):
        if not self.path.startswith(PREFIX):
            self.send_error(404, "outside")
            return
        path = self.path.removeprefix(PREFIX) if self.server.takes_off else self.path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = self.server.upstream + (path or "/")
        answer = httpx.request(
            self.command, url, headers=dict(self.headers), content=body, timeout=60
        )
        self.send_response(answer.status_code)
        for name, value in answer.headers.multi_items():
            if name not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = pass_on  # noqa: N815 - named by http.server

    def log_message(self, *_):
        pass


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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    port = free_port()
    with World(
        tmp_path_factory.mktemp("hostile"),
        console_lines=f'public_url = "http://127.0.0.1:{port}{PREFIX}"',
        more=TRIGGER,
        templates={f"insider/{NAME}": TEMPLATE},
    ) as it:
        it.start_worker("--concurrency=1")
        it.wait_until_ready()
        it.start_console()
        it.publish([event("p0@example.com", first_name=HOSTILE)])
        it.publish([event(f"p1@{REFUSED}", first_name=HOSTILE), event("h@x.example", slug=HOSTILE)])
        it.settle(delivered=1, dead=1)
        it.sandbox.settings(failures=[{"status": 400, "contains": "users", "message": HOSTILE}])
        it.publish([event(f"a{n}@example.com") for n in range(2)])
        until(lambda: "refused" in it.command("status").stdout.decode())
        done = it.command("pause", "trigger:exit", "--why", HOSTILE)
        assert done.returncode == 0, done.stderr
        it.publish([event("w@example.com", way="exit", last_name=HOSTILE)])
        yield it


@pytest.fixture
def proxy(request, world):
    upstream = f"http://127.0.0.1:{world.port}"
    with Proxy(upstream, takes_off=getattr(request, "param", True)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def pages_of(browser, first):
    """Yield each page that links lead to, with its answer; links must not lead elsewhere."""
    waiting, known, kinds = [first], {first}, Counter[tuple[str, ...]]()
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


def test_every_link_stays_below_the_prefix_and_hostile_texts_are_texts_also_revealed(proxy):
    browser = Browser(proxy.url)
    form = {"name": "ann", "password": PASSWORD}
    signed_in = browser.post(f"{PREFIX}/login?next=/letters", **form)
    assert signed_in.headers["location"] == f"{PREFIX}/letters"
    assert f"Path={PREFIX}" in signed_in.headers["set-cookie"]

    seen = {}
    for path, answer in pages_of(browser, f"{PREFIX}/"):
        assert answer.status_code == 200, path
        assert not [bad for bad in BAD if bad in answer.text], path
        seen[path] = answer.text

    text = "".join(seen.values())
    assert len(seen) > 30
    for escaped in ("&lt;script&gt;alert(1)", "&lt;script&gt;alert(2)", "&lt;img src=x onerror"):
        assert escaped in text
    assert "\\x1b[31m\\u202e" in text
    dead_letter = next(path for path in seen if "/letters/insider." in path)
    shown = browser.post(dead_letter, reason="ticket 8")
    assert f"p1@{REFUSED}" in shown.text or "a0@example.com" in shown.text
    assert not [bad for bad in BAD if bad in shown.text]


@pytest.mark.parametrize("proxy", [True, False], ids=["taken off", "left"], indirect=True)
def test_an_act_and_its_end_stay_below_the_prefix(proxy):
    browser = Browser(proxy.url)
    browser.post(f"{PREFIX}/login", name="ann", password=PASSWORD)

    answer = browser.post(f"{PREFIX}/act", act="pause", name="exit", why=HOSTILE)

    assert answer.headers["location"].startswith(f"{PREFIX}/acts/")
    page = browser.ended(answer.headers["location"])
    assert "done" in words(page)
    assert not [bad for bad in BAD if bad in page]
    assert not [bad for bad in BAD if bad in browser.get(f"{PREFIX}/audit").text]
    left = browser.post(f"{PREFIX}/logout")
    assert left.headers["location"] == f"{PREFIX}/login"
    assert browser.get(f"{PREFIX}/letters").status_code == 303
