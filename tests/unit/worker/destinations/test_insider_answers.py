"""Every answer of Insider, and what it means."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
    Verdict,
)
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.insider.api import InsiderApi

UPSERT = "https://example.com/api/user/v1/upsert"
DELETE = "https://example.com/api/user/v1/attribute/delete"
EMAIL_RULE = r"identifiers.email.regexp(^.+@.+\..+$)"
UNKNOWN = "no such user for these identifiers: no data"
DENIED = {"success": False, "message": "Unauthorized"}
PARTNER = {"success": False, "message": "Partner is invalid."}
OVERSIZED = {"error": "body is bigger than maximum allowed size"}


def read(
    body: Any, status: int = 200, *, users: int = 10, url: str = UPSERT, **answer: Any
) -> Verdict:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return InsiderApi().classify(Answer(status, content, **answer), users=users, url=url)


def counted(successful: Any, fail: Any, errors: Any = None) -> dict[str, Any]:
    failing = {"count": fail, "errors": errors} if errors is not None else {"count": fail}
    return {
        "data": {
            "successful": {"count": successful} if successful else {},
            "fail": failing if fail or errors else {},
        }
    }


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (counted(10, 0), set()),
        (counted(9, 1, {f"users.3.{EMAIL_RULE}": ["invalid email"]}), {3}),
        (counted(9, 2, {"users.3.a": "x", "users.3.b": "y"}), {3}),
        (counted(8, 2, {"users.3.a": "x", "users.3.b": "y"}), {3}),
        (counted(8, 2, {"users.3.a": ["x", "y"]}), {3}),
        (counted(8, 2, {"users.0": "x", "users.9.b": None}), {0, 9}),
        (counted(0, 10, {f"users.{index}.a": "x" for index in range(10)}), set(range(10))),
        ({"data": {"successful": {"count": 10}}}, set()),
    ],
)
def test_a_200_whose_counts_add_up_refuses_the_named_and_takes_the_others(
    body: Any, refused: set[int]
) -> None:
    verdict = read(body)

    assert isinstance(verdict, Accepted)
    assert set(verdict.refused) == refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>200 OK</html>",
        b"null",
        b"[]",
        b"{}",
        {"success": True},
        {"data": {}},
        {"data": []},
        {"data": {"successful": 10, "fail": {}}},
        {"data": {"successful": {"count": "10"}, "fail": {}}},
        {"data": {"successful": {"count": True}, "fail": {}}},
        {"data": {"successful": {"count": 10}, "fail": {"count": 0, "errors": ["x"]}}},
        counted(9, 0),
        counted(11, 0),
        counted(-1, 11),
        counted(8, 2),
        counted(8, 2, {"users.3.a": "x"}),
        counted(9, 1, {"users.10.a": "x"}),
        counted(9, 1, {"user.3.a": "x"}),
        counted(9, 1, {"users.x.a": "x"}),
        counted(9, 1, {"users.-1.a": "x"}),
        counted(0, 10),
    ],
)
def test_a_200_that_leaves_a_doubt_is_unreadable(body: Any) -> None:
    assert isinstance(read(body), Unreadable)


def test_a_200_that_was_cut_is_unreadable() -> None:
    assert isinstance(read(counted(10, 0), truncated=True), Unreadable)


def test_an_attribute_delete_may_answer_an_empty_object() -> None:
    assert read({}, url=DELETE) == Accepted()
    assert read(counted(10, 0), url=DELETE) == Accepted()


def test_an_exit_of_a_person_whom_insider_does_not_know_is_delivered() -> None:
    errors = {"users.2.identifiers": [UNKNOWN], "users.4.identifiers.email": ["invalid email"]}

    verdict = read(counted(8, 2, errors), url=DELETE)
    upserted = read(counted(8, 2, errors))

    assert isinstance(verdict, Accepted)
    assert set(verdict.refused) == {4}
    assert isinstance(upserted, Accepted)
    assert set(upserted.refused) == {2, 4}


def test_a_whole_delete_refused_for_an_unknown_person_is_isolated_and_then_delivered() -> None:
    body = {"error": UNKNOWN}

    assert isinstance(read(body, 404, url=DELETE), BodyRefused)
    assert read(body, 404, users=1, url=DELETE) == Accepted()
    assert isinstance(read(body, 404, users=1), BodyRefused)


@pytest.mark.parametrize(
    "said",
    ["unknown user attribute", "Unknown user attribute 'vip'", "attribute of user not found"],
)
def test_an_unknown_attribute_is_not_an_unknown_person(said: str) -> None:
    errors = {"users.0.custom.partial.vip": [said]}

    verdict = read(counted(0, 1, errors), users=1, url=DELETE)

    assert isinstance(verdict, Accepted)
    assert set(verdict.refused) == {0}
    assert isinstance(read({"error": said}, 400, users=1, url=DELETE), BodyRefused)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (400, {"error": "users is required"}, BodyRefused("400: users is required")),
        (400, {"success": False, "message": "bad"}, BodyRefused("400: bad")),
        (400, b"<html>", BodyRefused("400")),
        (400, OVERSIZED, TooLarge("400: body is bigger than maximum allowed size")),
        (400, PARTNER, AccessRefused("400: Partner is invalid.")),
        (401, DENIED, AccessRefused("401: Unauthorized")),
        (401, b"<html>", AccessRefused("401")),
        (403, DENIED, AccessRefused("403: Unauthorized")),
        (403, {"error": "Access Denied"}, AccessRefused("403: Access Denied")),
        (403, PARTNER, AccessRefused("403: Partner is invalid.")),
        (403, {"error": "Invalid api key"}, AccessRefused("403: Invalid api key")),
        (401, {"error": "Invalid api key"}, AccessRefused("401: Invalid api key")),
        (403, b"<html><title>Access Denied</title></html>", BodyRefused("403")),
        (403, {"message": "Forbidden"}, BodyRefused("403: Forbidden")),
        (403, {"success": False, "message": "Request Limit Exceeded"}, SlowDown()),
        (403, b"Request limit exceeded", SlowDown()),
        (403, {"success": False, "message": "Too many attempts, try later"}, SlowDown()),
        (403, {"error": "Too Many Attempts."}, SlowDown()),
        (403, b"<html><h1>Too many requests</h1></html>", SlowDown()),
        (404, b"", BodyRefused("404")),
        (405, b"", BodyRefused("405")),
        (408, b"", Failed("408")),
        (413, b"<html>", TooLarge("413")),
        (415, b"", BodyRefused("415")),
        (422, {"error": "x"}, BodyRefused("422: x")),
        (425, b"", Failed("425")),
        (429, {"error": "rejected: too many requests"}, SlowDown()),
        (500, b"<html>", Failed("500")),
        (502, b"", Failed("502")),
        (503, b"", Failed("503")),
        (504, b"", Failed("504")),
        (520, b"", Failed("520")),
        (302, b"", Failed("302", possibly_applied=False)),
        (304, b"", Failed("304", possibly_applied=False)),
        (600, b"", Failed("600")),
    ],
)
def test_every_other_status_has_its_verdict(status: int, body: Any, verdict: Verdict) -> None:
    assert read(body, status) == verdict


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("7", 7.0), ("1.5", 1.5), ("-3", None), ("soon", None), ("nan", None)],
)
def test_retry_after_is_read_in_seconds(text: str, seconds: float | None) -> None:
    assert read(b"", 429, retry_after=text) == SlowDown(seconds)


@given(
    status=st.integers(100, 700),
    body=st.binary(max_size=60) | st.sampled_from([orjson.dumps(counted(1, 0)), b"{}"]),
    url=st.sampled_from([UPSERT, DELETE]),
    users=st.integers(1, 3),
)
def test_any_answer_has_a_verdict_and_refuses_only_users_that_were_sent(
    status: int, body: bytes, url: str, users: int
) -> None:
    verdict = read(body, status, users=users, url=url)

    if isinstance(verdict, Accepted):
        assert set(verdict.refused) <= set(range(users))


def test_the_message_of_a_refused_user_names_place_and_rule_but_not_the_value() -> None:
    verdict = read(counted(9, 1, {f"users.3.{EMAIL_RULE}": ["invalid email: ann at example"]}))

    assert isinstance(verdict, Accepted)
    message = verdict.refused[3]
    assert message.startswith("identifiers.email.regexp(")
    assert "invalid email" in message
    assert "ann" not in message
