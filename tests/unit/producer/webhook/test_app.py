"""What the receiver answers, over ASGI, without a network."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from producer.webhook.app import CHECK_HEADER, LARGEST_BODY_BYTES, Receiver, build_app
from producer.webhook.intake import Intake, Stored
from worker.errors import RedisUnavailable

SECRET = {"x-segrelay-secret": "new"}
PATH = "/v1/lytics"


class Shelf:
    """Keeps what it is given; full where it was told so."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.is_full = is_full

    def store(self, bodies: Sequence[bytes]) -> list[Stored]:
        if self.is_full:
            raise RedisUnavailable("Redis is full.")
        self.bodies += bodies
        return [Stored(1, 0) for _ in bodies]


def ask(shelf: Shelf, method: str = "POST", path: str = PATH, **request: object) -> httpx.Response:
    receiver = Receiver(
        secrets=[b"new", b"old"],
        intake=Intake(shelf),
        ready=lambda: "Redis is full." if shelf.is_full else "",
        inspect=lambda body: {"bytes": len(body)},
    )

    async def play() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(receiver, PATH))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        (SECRET, PATH),
        ({"X-Segrelay-Secret": "old"}, PATH),
        ({}, f"{PATH}?secret=new"),
    ],
)
def test_each_valid_secret_is_taken_in_header_or_url(headers: dict[str, str], path: str) -> None:
    answer = ask(Shelf(), path=path, headers=headers, content=b"{}")

    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "quarantined": 0})


@pytest.mark.parametrize("headers", [{}, {"x-segrelay-secret": ""}, {"x-segrelay-secret": "no"}])
def test_without_the_secret_nothing_is_stored(headers: dict[str, str]) -> None:
    shelf = Shelf()

    answer = ask(shelf, headers=headers, content=b"{}")

    assert answer.status_code == 401
    assert shelf.bodies == []


@pytest.mark.parametrize("body", [b"", b"no JSON", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_stored_and_answered_200(body: bytes) -> None:
    shelf = Shelf()

    assert ask(shelf, headers=SECRET, content=body).status_code == 200
    assert shelf.bodies == [body]


def test_a_full_redis_is_a_503_that_says_when_to_come_back() -> None:
    answer = ask(Shelf(is_full=True), headers=SECRET, content=b"{}")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"] == "Redis is full."


def test_gzip_is_unpacked() -> None:
    shelf = Shelf()

    ask(shelf, headers=SECRET | {"content-encoding": "gzip"}, content=gzip.compress(b"{}"))

    assert shelf.bodies == [b"{}"]


def test_a_damaged_gzip_is_stored_as_it_came() -> None:
    shelf = Shelf()

    answer = ask(shelf, headers=SECRET | {"content-encoding": "gzip"}, content=b"no gzip")

    assert answer.status_code == 200
    assert shelf.bodies == [b"no gzip"]


def test_a_small_gzip_that_unpacks_to_a_huge_body_is_a_413() -> None:
    bomb = gzip.compress(bytes(LARGEST_BODY_BYTES + 1))

    answer = ask(Shelf(), headers=SECRET | {"content-encoding": "gzip"}, content=bomb)

    assert answer.status_code == 413


def test_a_body_without_end_is_cut() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(8 * 1024 * 1024)

    assert ask(Shelf(), headers=SECRET, content=endless()).status_code == 413


def test_a_mistyped_path_is_nothing_that_lytics_would_drop_events_for() -> None:
    assert ask(Shelf(), path="/v1/lytic", headers=SECRET).status_code not in {400, 404, 413}


def test_a_check_stores_nothing() -> None:
    shelf = Shelf()

    answer = ask(shelf, headers=SECRET | {CHECK_HEADER: "1"}, content=b"{}")

    assert answer.json() == {"check": True, "bytes": 2}
    assert shelf.bodies == []


@pytest.mark.parametrize(("is_full", "status"), [(False, 200), (True, 503)])
def test_readiness_follows_redis(is_full: bool, status: int) -> None:
    assert ask(Shelf(is_full=is_full), "GET", "/readyz").status_code == status


def test_being_alive_needs_nothing() -> None:
    assert ask(Shelf(is_full=True), "GET", "/healthz").status_code == 200
