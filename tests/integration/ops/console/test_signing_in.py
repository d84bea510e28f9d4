"""Signing in and out, and forms that never come whole."""

import asyncio
import time

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from segrelay.ops.console.rights import hash_password

PASSWORD = "correct horse battery"
URL = "http://127.0.0.1:8600"
OWN = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
USERS = {"ann": {"password": hash_password(PASSWORD)}, "vic": {"password": hash_password(PASSWORD)}}
PROXY = {"addresses": ["10.0.0.7"], "header": ""}


@pytest.fixture
def application(served):
    return served(users=USERS, secret="seals sessions", proxy=PROXY)


@pytest.fixture
def browser(application):
    """Return a browser behind the proxy, by the address that the proxy names."""

    def made(address="203.0.113.5"):
        return TestClient(
            application,
            base_url=URL,
            headers=OWN | {"X-Forwarded-For": address},
            client=("10.0.0.7", 1),
            follow_redirects=False,
        )

    return made


def sign_in(one, name="ann", password=PASSWORD):
    return one.post("/login", data={"name": name, "password": password}).status_code


def test_after_signing_out_a_copied_cookie_is_worth_nothing(browser):
    ann, thief, vic = browser(), browser(), browser()
    assert [sign_in(ann), sign_in(vic, "vic")] == [303, 303]
    thief.cookies = ann.cookies
    assert thief.get("/letters").status_code == 200

    ann.cookies = dict(ann.cookies)
    assert ann.post("/logout").status_code == 303

    assert thief.get("/letters").headers["location"].startswith("/login")
    assert vic.get("/letters").status_code == 200
    assert sign_in(ann) == 303
    assert ann.get("/letters").status_code == 200
    assert thief.get("/letters").status_code == 303


def test_a_stranger_behind_the_same_proxy_locks_nobody_out(browser):
    stranger = browser("198.51.100.9")
    tries = [sign_in(stranger, "ann", "wrong") for _ in range(6)]

    assert tries == [403] * 5 + [429]
    assert sign_in(browser()) == 303


def asked(application, receive):
    """Post a form to sign in of which only some comes; return the answer's messages."""
    headers = OWN | {"Host": "127.0.0.1:8600", "Content-Length": "1000"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "raw_path": b"/login",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "server": ("127.0.0.1", 8600),
        "client": ("203.0.113.5", 1),
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
    }
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


def test_a_form_that_is_broken_off_writes_no_traceback(application):
    async def receive():
        return {"type": "http.disconnect"}

    with capture_logs() as lines:
        asked(application, receive)

    assert not [line for line in lines if "exc_info" in line]


def test_a_form_that_does_not_come_ends_its_connection(application):
    async def receive():
        await asyncio.sleep(60)

    begun = time.monotonic()
    start, *_ = asked(application, receive)

    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert time.monotonic() - begun < 20
