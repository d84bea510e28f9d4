"""Signing in and out, and forms that never come whole."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from segrelay.ops.console.rights import hash_password
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.errors import ConfigurationInvalid, UsageWrong
from tests.integration.ops.console.conftest import OWN, browser_at
from tests.waiting import allowed, until

PASSWORD = "correct horse battery"
USERS = {"ann": {"password": hash_password(PASSWORD)}, "vic": {"password": hash_password(PASSWORD)}}
PROXY = {"addresses": ["10.0.0.7"], "header": ""}


@pytest.fixture
def application(served):
    return served(users=USERS, secret="seals sessions", proxy=PROXY)


@pytest.fixture
def browser(application):
    """Return a browser behind the proxy, by the address that the proxy names."""

    def made(address="203.0.113.5"):
        return browser_at(application, **{"X-Forwarded-For": address})

    return made


def sign_in(one, name="ann", password=PASSWORD):
    return one.post("/login", data={"name": name, "password": password}).status_code


def test_a_session_is_needed_leads_nobody_to_another_site_and_ends_for_a_copied_cookie_too(browser):
    ann, thief, vic = browser(), browser(), browser()
    assert thief.get("/letters").headers["location"] == "/login?next=%2Fletters"
    pause = {"act": "pause", "name": "insider", "why": "x"}
    assert thief.post("/act", data=pause).status_code == 403
    for address in ("https://evil.example", "//evil.example", "/\\evil.example"):
        form = {"name": "vic", "password": PASSWORD}
        answer = vic.post("/login", params={"next": address}, data=form)
        assert answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert sign_in(ann) == 303
    thief.cookies = ann.cookies
    assert thief.get("/letters").status_code == 200

    ann.cookies = dict(ann.cookies)
    assert ann.post("/logout").status_code == 303

    assert thief.get("/letters").headers["location"].startswith("/login")
    assert vic.get("/letters").status_code == 200
    assert sign_in(ann) == 303
    assert ann.get("/letters").status_code == 200
    assert thief.get("/letters").status_code == 303


def test_a_stranger_behind_the_same_proxy_locks_nobody_out_of_either_console(browser, served):
    other = served(users=USERS, secret="seals sessions", proxy=PROXY)
    stranger = browser("198.51.100.9")
    elsewhere = browser_at(other, **{"X-Forwarded-For": "198.51.100.9"})
    tries = [sign_in(one, "ann", "wrong") for one in [stranger, elsewhere] * 3]

    assert tries == [403] * 5 + [429]
    assert sign_in(browser()) == 303


def test_sign_ins_and_refusals_are_in_the_audit_and_the_log(browser, relay):
    ann = browser()
    until(lambda: time.time() % 3_600 < 3_580, 60)  # each hour has an act of its own
    with capture_logs() as lines:
        for name, password in (("ann", PASSWORD), ("ann", "x"), ("ann", "x"), ("eve@x.com", "x")):
            sign_in(ann, name, password)
        ann.post("/logout")

    acts = [(act.what, act.by, act.arguments["address"]) for act in read_acts(relay.client)]
    told = [(line["message"], line["by"], line["address"]) for line in lines]
    assert told == [
        ("sign in", "ann", "203.0.113.5"),
        ("sign in refused", "ann", "203.0.113.5"),
        ("sign in refused", "ann", "203.0.113.5"),
        ("sign in refused", "•••", "203.0.113.5"),
        ("sign out", "ann", "203.0.113.5"),
    ]
    assert acts[::-1] == [told[0], *told[2:]]


def asked(application, receive, hosts=("127.0.0.1:8600",)):
    """Post a form to sign in of which only some comes; return the answer's messages."""
    headers = [*OWN.items(), ("Content-Length", "1000"), *(("Host", host) for host in hosts)]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "raw_path": b"/login",
        "query_string": b"",
        "client": ("203.0.113.5", 1),
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers],
    }
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


def test_a_form_that_is_broken_off_or_does_not_come_or_has_two_hosts_is_refused(application):
    async def breaks_off():
        return {"type": "http.disconnect"}

    async def does_not_come():
        await asyncio.sleep(60)

    async def comes():
        return {"type": "http.request"}

    with capture_logs() as lines:
        asked(application, breaks_off)
    begun = time.monotonic()
    start, *_ = asked(application, does_not_come)

    assert [line["event"] for line in lines] == ["console.form_broken_off"]
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"], "its connection ends"
    assert time.monotonic() - begun < allowed(20)
    for hosts in (("evil.example", "127.0.0.1:8600"), ("127.0.0.1:8600", "x")):
        assert asked(application, comes, hosts)[0]["status"] == 421, "neither counts"


def test_the_console_listens_for_others_only_with_users_whose_passwords_are_hashes(call):
    with pytest.raises(ConfigurationInvalid, match=r"console\.users\.NAME"):
        call("console", "--listen", "0.0.0.0:0")

    hashed = call("console", "password", "--json", stdin="correct horse battery\n")
    assert '"hash": "scrypt:' in hashed.stdout
    with pytest.raises(UsageWrong):
        call("console", "password", stdin="short\n")
