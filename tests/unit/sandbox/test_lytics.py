"""The stand-in for Lytics: its API as Lytics documents it, decided without a network."""

import asyncio
from typing import Any

import orjson
import pytest

from segrelay.sandbox.exchange import Reply
from segrelay.sandbox.lytics.account import audience_id
from segrelay.sandbox.lytics.api import Lytics
from segrelay.sandbox.settings import LyticsSwitches

TOKEN = {"authorization": "a-token"}


def lytics(people: int = 0, **switches: Any) -> Lytics:
    built = Lytics(LyticsSwitches(**switches))
    built.account.put(
        {"_uid": f"u{number:05}", "email": f"p{number}@example.com", "segments": ["vip"]}
        for number in range(people)
    )
    return built


def ask(side: Lytics, method: str, path: str, *, body: bytes = b"", **query: str) -> Reply:
    return asyncio.run(side.api(method, path, query, TOKEN, body))


def scan(side: Lytics, name: str = "vip", **query: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(
        ask(side, "GET", f"/api/segment/{name}/scan", **query).body
    )
    return found


def test_an_audience_is_found_by_its_id_too() -> None:
    assert scan(lytics(people=3), audience_id("vip"))["total"] == 3


def test_without_a_token_nothing_is_told() -> None:
    answer = asyncio.run(lytics(people=1).api("GET", "/api/segment/vip/scan", {}, {}, b""))

    assert answer.status == 401


@pytest.mark.parametrize(
    ("record", "rejected"),
    [
        ({"a": 1}, 0),
        ({"a": "x" * 5_000}, 1),
        ({"a": [{"b": 1}]}, 1),
        ({"a": [1, 2]}, 0),
        ("no object", 1),
    ],
)
def test_collect_keeps_to_its_limits(record: Any, rejected: int) -> None:
    answer = ask(lytics(), "POST", "/collect/json/answers", body=orjson.dumps(record))

    assert orjson.loads(answer.body)["data"]["rejected_count"] == rejected


def test_a_move_that_changes_nothing_is_no_move() -> None:
    side = lytics(people=1)
    moves = [{"uid": "u00000", "audience": "vip", "change": "enter"}]

    assert side.move(moves) == 0
