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
SHAPE = Unreadable("200: the body has another shape than known")
SUM = Unreadable("200: the counts do not add up to the users sent")
NAMES_NOBODY = Unreadable("200: an error names no user that was sent")
HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"
OVERSIZED = {"error": "body is bigger than maximum allowed size"}


def read(
    body: Any, status: int = 200, *, users: int = 10, url: str = UPSERT, **answer: Any
) -> Verdict:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return InsiderApi().classify(Answer(status, content, **answer), [b"{}"] * users, url)


def sides(successful: Any, fail: Any) -> dict[str, Any]:
    return {"data": {"successful": successful, "fail": fail}}


def counted(successful: int, fail: int, errors: Any = None) -> dict[str, Any]:
    failing = {"count": fail, "errors": errors} if errors is not None else {"count": fail}
    return sides({"count": successful} if successful else {}, failing if fail or errors else {})


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (counted(10, 0), set()),
        (counted(9, 1, {f"users.3.{EMAIL_RULE}": ["invalid email"]}), {3}),
        (counted(9, 2, {"users.3.a": "x", "users.3.b": "y"}), {3}),
        (counted(8, 2, {"users.3.a": "x", "users.3.b": "y"}), {3}),
        (counted(8, 2, {"users.3.a": ["x", "y"]}), {3}),
        (counted(8, 2, {"users.0": "x", "users.9.b": None}), {0, 9}),
        (counted(10, 0, {"users.3": "bad", "users.4": "bad"}), {3, 4}),
        (counted(0, 10, {f"users.{index}.a": "x" for index in range(10)}), set(range(10))),
        ({"data": {"successful": {"count": 10}}}, set()),
        (b'{"data": {}, "data": {"successful": {"count": 10}}}', set()),
    ],
)
def test_a_200_whose_counts_add_up_refuses_the_named_and_takes_the_others(
    body: Any, refused: set[int]
) -> None:
    verdict = read(body)

    assert isinstance(verdict, Accepted)
    assert set(verdict.refused) == refused


NOBODY_FAILED = orjson.dumps(counted(10, 0))
UNREADABLE: dict[str, tuple[Any, Unreadable]] = {
    "nothing": (b"", SHAPE),
    "rest behind it": (NOBODY_FAILED + b"x", SHAPE),
    "a page": (HTML, SHAPE),
    "no UTF-8": (b'{"data": "\xff\xfe"}', SHAPE),
    "a byte order mark": (b"\xef\xbb\xbf" + NOBODY_FAILED, SHAPE),
    "nested without end": (b"[" * 5_000 + b"]" * 5_000, SHAPE),
    "an empty object": ({}, SHAPE),
    "the shape of an error": ({"success": False, "message": "oops"}, SHAPE),
    "data is empty": ({"data": {}}, SHAPE),
    "data comes twice, the last is empty": (NOBODY_FAILED[:-1] + b', "data": {}}', SHAPE),
    "other words": ({"data": {"succeeded": {"count": 10}}}, SHAPE),
    "a side is null": (sides({"count": 10}, None), SHAPE),
    "a count is a text": (sides({"count": "10"}, {}), SHAPE),
    "a count is a fraction": (sides({"count": 10.0}, {}), SHAPE),
    "a count is true": (sides({"count": True}, {}), SHAPE),
    "a count is below zero": (counted(11, -1), SHAPE),
    "a count beyond 64 bits": (b'{"data": {"successful": {"count": 1e999}}}', SHAPE),
    "errors are an array": (counted(9, 1, ["users.3"]), SHAPE),
    "too few": (counted(9, 0), SUM),
    "too many": (counted(11, 0), SUM),
    "none at all": (sides({}, {}), SUM),
    "one failed, nobody says who": (counted(9, 1), SUM),
    "two failed, one is named": (counted(8, 2, {"users.3.email": "bad"}), SUM),
    "a user beyond the last": (counted(9, 1, {"users.10.email": "bad"}), NAMES_NOBODY),
    "a user by name": (counted(9, 1, {"users.first.email": "bad"}), NAMES_NOBODY),
    "a user in other digits": (counted(9, 1, {"users.٣.email": "bad"}), NAMES_NOBODY),
    "an error of no user": (counted(9, 1, {"email": "bad"}), NAMES_NOBODY),
}


@pytest.mark.parametrize(("body", "verdict"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_200_that_leaves_a_doubt_is_unreadable_and_says_why(
    body: Any, verdict: Unreadable
) -> None:
    assert read(body) == verdict


@pytest.mark.parametrize("body", [b"", NOBODY_FAILED, b"{}", HTML])
@pytest.mark.parametrize("url", [UPSERT, DELETE])
def test_a_200_that_was_cut_is_believed_nothing(body: bytes, url: str) -> None:
    assert read(body, url=url, truncated=True) == Unreadable("200: the body was cut")


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
        (400, HTML, BodyRefused("400")),
        (400, {"error": {"code": 7}}, BodyRefused("400")),
        (400, {"error": "ann@example.com is no email"}, BodyRefused("400: <email> is no email")),
        (400, {"error": "x" * 100_000}, BodyRefused("400: " + "x" * 200)),
        (400, OVERSIZED, TooLarge("400: body is bigger than maximum allowed size")),
        (400, PARTNER, AccessRefused("400: Partner is invalid.")),
        (401, DENIED, AccessRefused("401: Unauthorized")),
        (401, b"<html>", AccessRefused("401")),
        (403, DENIED, AccessRefused("403: Unauthorized")),
        (403, {"error": "Access Denied"}, AccessRefused("403: Access Denied")),
        (403, {"error": "Invalid api key"}, AccessRefused("403: Invalid api key")),
        (403, b"<html><title>Access Denied</title></html>", BodyRefused("403")),
        (403, {"message": "Forbidden"}, BodyRefused("403: Forbidden")),
        (403, {"success": "false", "message": "no"}, BodyRefused("403: no")),
        (403, {"success": False, "message": "Request Limit Exceeded"}, SlowDown()),
        (403, b"Request limit exceeded", SlowDown()),
        (403, {"error": "Too Many Attempts."}, SlowDown()),
        (403, b"<html><h1>Too many requests</h1></html>", SlowDown()),
        (404, b"", BodyRefused("404")),
        (407, HTML, Failed("407")),
        (408, b"", Failed("408")),
        (413, b"<html>", TooLarge("413")),
        (425, b"", Failed("425")),
        (429, {"error": "rejected: too many requests"}, SlowDown()),
        (500, NOBODY_FAILED, Failed("500")),
        (302, b"", Failed("302", possibly_applied=False)),
        (600, b"", Failed("600")),
    ],
)
def test_every_other_status_has_its_verdict(status: int, body: Any, verdict: Verdict) -> None:
    assert read(body, status) == verdict


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("1.5", 1.5)]
    + [(text, None) for text in ("", "soon", "-3", "nan", "1e999", "0x10", "1,5")],
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
