"""Answers that are wrong, cut, foreign or hostile: each with its verdict and its message."""

import orjson
import pytest

from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
)
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.insider.api import InsiderApi

UPSERT = "https://example.com/api/user/v1/upsert"
DELETE = "https://example.com/api/user/v1/attribute/delete"
USERS = 10
SHAPE = Unreadable("200: the body has another shape than known")
SUM = Unreadable("200: the counts do not add up to the users sent")
NAMES_NOBODY = Unreadable("200: an error names no user that was sent")
CUT = Unreadable("200: the body was cut")
HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"


def sides(successful, fail):
    return {"data": {"successful": successful, "fail": fail}}


def counts(successful, failed, errors=None):
    fail = {"count": failed} if errors is None else {"count": failed, "errors": errors}
    return sides({"count": successful}, fail)


UNREADABLE = {
    "nothing": (b"", SHAPE),
    "spaces": (b" \r\n\t", SHAPE),
    "half an object": (b'{"data": {"successful": {"count": 1', SHAPE),
    "two objects": (b'{"data": {}} {"data": {}}', SHAPE),
    "rest behind it": (orjson.dumps(counts(10, 0)) + b"x", SHAPE),
    "a page": (HTML, SHAPE),
    "XML": (b"<?xml version='1.0'?><ok/>", SHAPE),
    "text": (b"OK", SHAPE),
    "zeros": (bytes(64), SHAPE),
    "no UTF-8": (b'{"data": "\xff\xfe"}', SHAPE),
    "UTF-16": ('{"data": {}}'.encode("utf-16"), SHAPE),
    "a byte order mark": (b"\xef\xbb\xbf" + orjson.dumps(counts(10, 0)), SHAPE),
    "gzip undeclared": (b"\x1f\x8b\x08\x00\x00\x00", SHAPE),
    "nested without end": (b"[" * 5_000 + b"]" * 5_000, SHAPE),
    "NaN": (b'{"data": {"successful": {"count": NaN}}}', SHAPE),
    "null": (b"null", SHAPE),
    "true": (b"true", SHAPE),
    "a number": (b"10", SHAPE),
    "a text": (b'"successful"', SHAPE),
    "an array": ([counts(10, 0)], SHAPE),
    "an empty object": ({}, SHAPE),
    "the shape of an error": ({"success": False, "message": "oops"}, SHAPE),
    "success and no counts": ({"success": True}, SHAPE),
    "data is null": ({"data": None}, SHAPE),
    "data is an array": ({"data": []}, SHAPE),
    "data is empty": ({"data": {}}, SHAPE),
    "other words": ({"data": {"succeeded": {"count": 10}}}, SHAPE),
    "other case": ({"Data": {"Successful": {"Count": 10}}}, SHAPE),
    "a side is a number": (sides(10, {}), SHAPE),
    "a side is null": (sides({"count": 10}, None), SHAPE),
    "a side is an array": (sides({"count": 10}, []), SHAPE),
    "a count is a text": (sides({"count": "10"}, {}), SHAPE),
    "a count is a fraction": (sides({"count": 10.0}, {}), SHAPE),
    "a count is true": (sides({"count": True}, {}), SHAPE),
    "a count is null": (sides({"count": None}, {}), SHAPE),
    "a count is below zero": (counts(11, -1), SHAPE),
    "a count beyond 64 bits": (b'{"data": {"successful": {"count": 1e999}}}', SHAPE),
    "errors are an array": (counts(9, 1, ["users.3"]), SHAPE),
    "errors are a text": (counts(9, 1, "users.3"), SHAPE),
    "errors are null": (sides({"count": 10}, {"count": 0, "errors": None}), SHAPE),
    "too few": (counts(9, 0), SUM),
    "too many": (counts(11, 0), SUM),
    "none at all": (sides({}, {}), SUM),
    "one failed, nobody says who": (counts(9, 1), SUM),
    "two failed, one is named": (counts(8, 2, {"users.3.email": "bad"}), SUM),
    "all failed, nobody is named": (counts(0, 10), SUM),
    "a user beyond the last": (counts(9, 1, {"users.10.email": "bad"}), NAMES_NOBODY),
    "a user far beyond": (counts(9, 1, {"users.99999999999999999999": "bad"}), NAMES_NOBODY),
    "a user below zero": (counts(9, 1, {"users.-1.email": "bad"}), NAMES_NOBODY),
    "a user by name": (counts(9, 1, {"users.first.email": "bad"}), NAMES_NOBODY),
    "a user in other digits": (counts(9, 1, {"users.٣.email": "bad"}), NAMES_NOBODY),
    "an error of no user": (counts(9, 1, {"email": "bad"}), NAMES_NOBODY),
    "an error without a name": (counts(9, 1, {"": "bad"}), NAMES_NOBODY),
}
STATUSES = {
    "302 elsewhere": (302, b"", Failed("302", possibly_applied=False)),
    "304": (304, b"", Failed("304", possibly_applied=False)),
    "400 and nothing": (400, b"", BodyRefused("400")),
    "400 and a page": (400, HTML, BodyRefused("400")),
    "400 and half an object": (400, b'{"error": "us', BodyRefused("400")),
    "400 and an array": (400, b"[1]", BodyRefused("400")),
    "400, error is no text": (400, b'{"error": {"code": 7}}', BodyRefused("400")),
    "400, error is null": (400, b'{"error": null}', BodyRefused("400")),
    "400 with a value in it": (
        400,
        b'{"error": "ann@example.com is no email"}',
        BodyRefused("400: <email> is no email"),
    ),
    "400 and a very long text": (
        400,
        orjson.dumps({"error": "x" * 100_000}),
        BodyRefused("400: " + "x" * 200),
    ),
    "401 and a page": (401, HTML, AccessRefused("401")),
    "403 and a page": (403, HTML, BodyRefused("403")),
    "403 and nothing": (403, b"", BodyRefused("403")),
    "403, success is a text": (
        403,
        b'{"success": "false", "message": "no"}',
        BodyRefused("403: no"),
    ),
    "403, the limit as plain text": (403, b"Request Limit Exceeded", SlowDown()),
    "407 of a proxy": (407, HTML, Failed("407")),
    "413 and a page": (413, HTML, TooLarge("413")),
    "429 and a page": (429, HTML, SlowDown()),
    "500 and an answer that looks good": (500, orjson.dumps(counts(10, 0)), Failed("500")),
    "503 and a page": (503, HTML, Failed("503")),
    "599": (599, b"", Failed("599")),
    "999": (999, b"", Failed("999")),
}


def read(body, status=200, *, url=UPSERT, **answer):
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return InsiderApi().classify(Answer(status, content, **answer), users=USERS, url=url)


def test_there_are_enough_of_them():
    assert len(UNREADABLE) >= 50


@pytest.mark.parametrize(("body", "verdict"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_success_that_leaves_a_doubt_says_why(body, verdict):
    assert read(body) == verdict


@pytest.mark.parametrize("body", [b"", orjson.dumps(counts(10, 0)), b"{}", HTML])
@pytest.mark.parametrize("url", [UPSERT, DELETE])
def test_a_success_that_was_cut_is_believed_nothing(body, url):
    assert read(body, url=url, truncated=True) == CUT


@pytest.mark.parametrize(("status", "body", "verdict"), STATUSES.values(), ids=STATUSES)
def test_an_error_that_is_malformed_says_what_can_be_said(status, body, verdict):
    assert read(body, status) == verdict


@pytest.mark.parametrize("text", ["soon", "-1", "1e999", "nan", "", "0x10", "1,5"])
def test_a_wait_that_can_not_be_read_is_none(text):
    assert read(b"", 429, retry_after=text) == SlowDown(None)


def test_of_two_keys_of_one_name_the_last_counts_and_the_sum_must_be_right():
    assert read(b'{"data": {}, "data": {"successful": {"count": 10}}}') == Accepted()
    assert read(b'{"data": {"successful": {"count": 10}}, "data": {}}') == SHAPE


def test_who_is_named_is_refused_even_where_the_counts_say_that_nobody_failed():
    verdict = read(counts(10, 0, {"users.3": "bad", "users.4": "bad"}))

    assert isinstance(verdict, Accepted)
    assert set(verdict.refused) == {3, 4}
