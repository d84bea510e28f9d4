"""The stand-in for Lytics: its API as Lytics documents it, decided without a network."""

import asyncio
from email.utils import parsedate_to_datetime
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


def scan_whole(side: Lytics, **query: str) -> list[str]:
    uids: list[str] = []
    start = ""
    while True:
        page = scan(side, **query, **({"start": start} if start else {}))
        uids += [row["_uid"] for row in page["data"]]
        start = page["_next"]
        if not start:
            return uids


def test_a_scan_shows_every_member_once_in_pages_of_at_most_a_hundred() -> None:
    side = lytics(people=250)

    uids = scan_whole(side, limit="500")

    assert len(uids) == len(set(uids)) == 250
    assert side.scans.pages == 3


def test_a_row_has_its_uid_its_fields_and_its_segments() -> None:
    [row] = scan(lytics(people=1))["data"]

    assert row == {"_uid": "u00000", "email": "p0@example.com", "segments": ["vip"]}


def test_fields_limit_what_a_row_shows() -> None:
    [row] = scan(lytics(people=1), fields="nothing")["data"]

    assert row == {"_uid": "u00000", "segments": ["vip"]}


def test_an_audience_is_found_by_its_id_too() -> None:
    assert scan(lytics(people=3), audience_id("vip"))["total"] == 3


def test_a_token_expires() -> None:
    side = lytics(people=3, page_token_seconds=0.001)
    start = scan(side, limit="1")["_next"]

    asyncio.run(asyncio.sleep(0.01))

    assert ask(side, "GET", "/api/segment/vip/scan", start=start).status == 400


def test_a_truncated_scan_ends_early_but_tells_the_true_total() -> None:
    page = scan(lytics(people=10, scan_ends_after_rows=4), limit="100")

    assert (len(page["data"]), page["total"], page["_next"]) == (4, 10, "")


def test_rows_may_come_twice() -> None:
    uids = scan_whole(lytics(people=9, repeated_rows=1.0), limit="3")

    assert (len(uids), len(set(uids))) == (11, 9)


def test_the_status_may_be_a_text() -> None:
    assert scan(lytics(people=1, status_as_text=True))["status"] == "200"


def test_without_a_token_nothing_is_told() -> None:
    answer = asyncio.run(lytics(people=1).api("GET", "/api/segment/vip/scan", {}, {}, b""))

    assert answer.status == 401


def test_every_answer_tells_the_time_of_its_own_clock() -> None:
    day = 86_400.0
    dates = [
        parsedate_to_datetime(
            dict(
                ask(
                    lytics(people=1, date_offset_seconds=offset), "GET", "/api/segment/vip/scan"
                ).headers
            )[b"date"].decode()
        )
        for offset in (0.0, day)
    ]

    assert (dates[1] - dates[0]).total_seconds() == pytest.approx(day, abs=5)


def test_who_does_not_exist_is_answered_200() -> None:
    answer = ask(lytics(), "GET", "/api/entity/user/email/nobody@example.com")

    assert orjson.loads(answer.body)["data"] == {"segments": ["not_found", "all"]}
    assert answer.status == 200


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


def test_a_batch_may_have_larger_records() -> None:
    body = orjson.dumps([{"a": "x" * 5_000}])

    answer = ask(lytics(), "POST", "/collect/json/answers", body=body)

    assert orjson.loads(answer.body)["data"] == {"message_count": 1, "rejected_count": 0}


def test_a_template_is_updated_with_put_and_not_with_post() -> None:
    side = lytics()
    made = orjson.loads(
        ask(side, "POST", "/v2/template", body=b"{}", name="enter", type="jsonnet").body
    )
    path = f"/v2/template/{made['data']['id']}"

    assert ask(side, "POST", path, body=b"{a: 1}").status == 405
    assert ask(side, "PUT", path, body=b"{a: 1}").status == 200
    assert [template.source for template in side.templates.kept.values()] == ["{a: 1}"]


def test_a_template_can_be_tested_once_it_was_put_there_with_its_desired_format() -> None:
    side = lytics()
    made = orjson.loads(
        ask(side, "POST", "/v2/template", body=b"{ a: 1 }", name="enter", type="jsonnet").body
    )
    path = f"/v2/template/{made['data']['id']}"
    asked = orjson.dumps({"desired_format": "json", "entity": {}})

    refused = ask(side, "POST", f"{path}/test", body=asked)
    ask(side, "PUT", path, body=b"{ a: 1 }", desired_format="json")
    tested = ask(side, "POST", f"{path}/test", body=asked)

    assert (refused.status, refused.body) == (500, b"")
    assert (tested.status, orjson.loads(tested.body)["data"]) == (200, {"a": 1})


def test_a_template_is_listed_without_its_source() -> None:
    side = lytics()
    ask(side, "POST", "/v2/template", body=b"{}", name="enter", type="jsonnet")

    [shown] = orjson.loads(ask(side, "GET", "/v2/template").body)["data"]

    assert "source" not in shown


def test_a_move_that_changes_nothing_is_no_move() -> None:
    side = lytics(people=1)
    moves = [{"uid": "u00000", "audience": "vip", "change": "enter"}]

    assert side.move(moves) == 0
