"""What the receiver answers, over ASGI, without a network."""

import asyncio
import errno
import gzip
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import redirect_stderr

import httpx
import pytest

from segrelay.producer.publishing.published import Published
from segrelay.producer.webhook.app import (
    CHECK_HEADER,
    REFUSAL_LINES,
    Receiver,
    build_app,
)
from segrelay.producer.webhook.intake import MOST_PAYLOADS, Body, Intake
from segrelay.worker import logs
from segrelay.worker.errors import RedisUnavailable

NAME = "x-segrelay-secret"
SECRET = {NAME: "new"}
PATH = "/v1/lytics"
MOST_BYTES = 4_000_000
GZIP = SECRET | {"content-encoding": "gzip"}


class Shelf:
    """Keeps what it is given; full where it was told so."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.is_full = is_full

    def store(self, bodies: Sequence[Body]) -> None:
        if self.is_full:
            raise RedisUnavailable("Redis is full.")
        for body in bodies:
            body.advance(Published(accepted=len(list(body.payloads()))))
            if body.refusal is None:
                self.bodies.append(body.text)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """The lines that are logged while a test runs."""
    output = io.StringIO()
    with redirect_stderr(output):
        logs.configure(logging.INFO)
        yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]


def receiver_of(shelf: Shelf) -> Receiver:
    return Receiver(
        secrets=[b"new", b"old"],
        intake=Intake(shelf.store),
        ready=lambda: "Redis is full." if shelf.is_full else "",
        inspect=lambda body: {"bytes": len(body.text)},
        max_bytes=MOST_BYTES,
    )


def ask(shelf: Shelf, method: str = "POST", path: str = PATH, **request: object) -> httpx.Response:
    receiver = receiver_of(shelf)

    async def play() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(receiver, PATH))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(play())


TAKEN, CHECKED = {"accepted": 1, "quarantined": 0}, {"check": True, "bytes": 2}


@pytest.mark.parametrize(
    ("headers", "path", "body", "status", "document"),
    [
        (SECRET, PATH, b"{}", 200, TAKEN),
        ({"X-Segrelay-Secret": "old"}, PATH, b"{}", 200, TAKEN),
        ({}, f"{PATH}?secret=new", b"{}", 200, TAKEN),
        *((SECRET, PATH, body, 200, TAKEN) for body in (b"", b"no", b"\xff\xfe", b"[" * 100_000)),
        *((wrong, PATH, b"{}", 401, {}) for wrong in ({}, *({NAME: text} for text in ("", "no")))),
        (SECRET | {CHECK_HEADER: "1"}, PATH, b"{}", 200, CHECKED),
    ],
)
def test_what_comes_with_a_valid_secret_is_stored_whatever_it_is_and_a_check_is_not(
    headers: dict[str, str], path: str, body: bytes, status: int, document: dict[str, object]
) -> None:
    shelf = Shelf()

    answer = ask(shelf, path=path, headers=headers, content=body)

    assert answer.status_code == status
    assert document.items() <= answer.json().items()
    assert shelf.bodies == [body] * (document is TAKEN)


def test_a_full_redis_is_a_503_that_says_when_to_come_back() -> None:
    answer = ask(Shelf(is_full=True), headers=SECRET, content=b"{}")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"] == "Redis is full."


ONE, TWO = gzip.compress(b'{"a": 1}'), gzip.compress(b'{"a": 2}')


@pytest.mark.parametrize(
    ("content", "accepted", "stored"),
    [
        pytest.param(ONE, 1, b'{"a": 1}', id="one member"),
        pytest.param(ONE + TWO + gzip.compress(b""), 2, b'{"a": 1}{"a": 2}', id="several"),
        pytest.param(ONE + bytes(512), 1, b'{"a": 1}', id="padded with zeros"),
        pytest.param(ONE + TWO[:-9], 1, ONE + TWO[:-9], id="cut off behind it"),
        pytest.param(b"no gzip", 1, b"no gzip", id="none"),
        pytest.param(ONE[:12] + b"~" + ONE[13:], 1, ONE[:12] + b"~" + ONE[13:], id="damaged"),
    ],
)
def test_gzip_is_unpacked_and_what_is_damaged_is_stored_as_it_came(
    content: bytes, accepted: int, stored: bytes
) -> None:
    shelf = Shelf()

    answer = ask(shelf, headers=GZIP, content=content)

    assert (answer.status_code, answer.json()["accepted"]) == (200, accepted)
    assert shelf.bodies == [stored]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(GZIP, gzip.compress(bytes(MOST_BYTES + 1)), id="unpacked bytes"),
        pytest.param(GZIP, gzip.compress(bytes(MOST_BYTES // 2 + 1)) * 2, id="of two members"),
        pytest.param(SECRET, bytes(MOST_BYTES + 1), id="bytes"),
        pytest.param(SECRET, b"[" + b"{}," * MOST_PAYLOADS + b"{}]", id="payloads"),
        pytest.param(GZIP, gzip.compress(b"[" + b"{}," * 1_000_000 + b"{}]"), id="a bomb of them"),
    ],
)
def test_what_is_too_large_is_a_413_and_stores_nothing(
    headers: dict[str, str], body: bytes
) -> None:
    shelf = Shelf()

    answer = ask(shelf, headers=headers, content=body)

    assert answer.status_code == 413
    assert shelf.bodies == []


def test_a_body_without_end_is_cut() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(8 * 1024 * 1024)

    assert ask(Shelf(), headers=SECRET, content=endless()).status_code == 413


@pytest.mark.parametrize(
    ("is_full", "path", "status"),
    [(False, "/readyz", 200), (True, "/readyz", 503), (True, "/healthz", 200)],
)
def test_readiness_follows_redis_and_being_alive_needs_nothing(
    is_full: bool, path: str, status: int
) -> None:
    assert ask(Shelf(is_full=is_full), "GET", path).status_code == status


Logged = Callable[[], list[dict[str, object]]]
BODY = b'{"data": {"email": "ann@example.com"}}'


@pytest.mark.parametrize(
    ("headers", "status", "accepted"),
    [pytest.param(SECRET, 200, 1, id="taken"), pytest.param({}, 401, 0, id="refused")],
)
def test_each_request_is_one_line_whose_id_is_in_the_answer(
    logged: Logged, headers: dict[str, str], status: int, accepted: int
) -> None:
    answer = ask(Shelf(), path=f"{PATH}?secret=no", headers=headers, content=BODY)

    (line,) = logged()
    assert line["event"] == "webhook.answered"
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["status"], line["accepted"], line["quarantined"]) == (status, accepted, 0)
    assert "elapsed_seconds" in line
    assert "ann@" not in str(line)
    assert "secret" not in str(line)


def test_the_probes_of_a_supervisor_are_not_logged(logged: Logged) -> None:
    ask(Shelf(), "GET", "/healthz")
    ask(Shelf(), "GET", "/readyz")

    assert logged() == []


def test_a_mistyped_path_is_logged_too(logged: Logged) -> None:
    answer = ask(Shelf(), path="/v1/lytic?secret=no", content=BODY)

    assert [(line["status"], line["request"]) for line in logged()] == [
        (421, answer.headers["x-request-id"])
    ]


class Broken(Shelf):
    def store(self, bodies: Sequence[Body]) -> None:
        raise ValueError(bodies[0].text.decode())


def test_an_error_of_our_own_is_answered_and_logged_with_the_id_and_without_the_payload(
    logged: Logged,
) -> None:
    answer = ask(Broken(), headers=SECRET, content=BODY)

    assert answer.status_code == 500
    own = [line for line in logged() if line.get("request") == answer.headers["x-request-id"]]
    assert [line["event"] for line in own] == ["webhook.failed", "webhook.answered"]
    assert "ann@" not in str(logged())


def test_refused_requests_do_not_fill_the_log(logged: Logged) -> None:
    for _ in range(3 * REFUSAL_LINES):
        ask(Shelf(), "PUT", content=BODY)

    assert 0 < len(logged()) <= REFUSAL_LINES


class FullDisk(io.StringIO):
    """A log that can't be written."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_stored_is_answered_while_the_disk_of_the_log_is_full() -> None:
    with redirect_stderr(FullDisk()):
        logs.configure(logging.INFO)
        answer = ask(Shelf(), headers=SECRET, content=BODY)

    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
