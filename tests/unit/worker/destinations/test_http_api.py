"""A destination of which nothing is known but that 2xx means yes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from ops.bench.shaping import occasion_of_sample
from worker.contract.words import Death, Skip
from worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Verdict,
)
from worker.destinations.api import Answer, Knowledge, NotSendable, Shaped
from worker.destinations.http import HttpApi

API = HttpApi()
OCCASION = replace(occasion_of_sample(), url="https://example.com/in")


@pytest.mark.parametrize("body", [{"a": "", "b": None}, [1, 2], 0, False])
def test_a_body_is_sent_as_the_template_yields_it(body: Any) -> None:
    result = API.shape(body, OCCASION)

    assert isinstance(result, Shaped)
    assert API.correct(result, OCCASION, Knowledge(stale=True)) is result
    written = [orjson.dumps(one) for one in result.users]
    assert orjson.loads(API.assemble(written, result.root)) == body


@pytest.mark.parametrize("body", [None, "", {}, []])
def test_nothing_is_skipped(body: Any) -> None:
    result = API.shape(body, OCCASION)

    assert isinstance(result, NotSendable)
    assert result.reason is Skip.EMPTY


@pytest.mark.parametrize("url", ["https://example.com/hook?x=1", "/hook?x=1", "hook?x=1"])
def test_a_text_is_the_url(url: str) -> None:
    result = API.shape(url, OCCASION)

    assert isinstance(result, Shaped)
    assert result.url == "https://example.com/hook?x=1"


@pytest.mark.parametrize(
    "url",
    [
        "https://unification.useinsider.com/api/user/v1/delete",
        "https://example.com/api/user/%761/x/../delete",
        "/api//user/v1/DELETE",
        "http://example.com/",
        "https://other.example.com/hook",
        "//other.example.com/hook",
        "https://ex ample.com/",
        "http://[bad",
        "//[::1",
    ],
)
def test_a_url_that_may_not_be_sent_to_is_dead(url: str) -> None:
    result = API.shape(url, OCCASION)

    assert isinstance(result, NotSendable)
    assert result.reason is Death.INVALID


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"anything", Accepted()),
        (204, b"", Accepted()),
        (400, b'{"detail": "no 17"}', BodyRefused("400: no <n>")),
        (404, b"<html>", BodyRefused("404")),
        (422, b"", BodyRefused("422")),
        (413, b"", TooLarge("413")),
        (401, b"", AccessRefused("401")),
        (403, b"", AccessRefused("403")),
        (429, b"", SlowDown(3.0)),
        (301, b"", Failed("301", possibly_applied=False)),
        (503, b"", Failed("503")),
    ],
)
def test_an_answer_means_what_its_status_says(status: int, body: bytes, verdict: Verdict) -> None:
    answer = Answer(status, body, retry_after="3")

    assert API.classify(answer, users=1, url=OCCASION.url) == verdict


def test_the_identity_may_stand_anywhere_in_the_body() -> None:
    body = {"a": [{"b": "ANN@example.com "}]}

    assert API.identifies(body, "ann@example.com")
    assert not API.identifies(body, "bob@example.com")
    assert API.identifiers(body) == frozenset()
