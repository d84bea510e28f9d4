"""A destination of which nothing is known but that 2xx means yes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ops.bench.shaping import HEADER, NOW_US, RULES
from worker.contract.settings.http import Failures, HttpRequests
from worker.contract.words import Death, Skip
from worker.core.knowledge import Knowledge
from worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
    Verdict,
)
from worker.destinations.api import Answer, NotSendable, Shaped
from worker.destinations.http import HttpApi

API = HttpApi()
URL = "https://example.com/in"
EVENT = (HEADER, RULES._replace(url=URL))


@pytest.mark.parametrize("body", [{"a": "", "b": None}, [1, 2], 0, False])
def test_a_body_is_sent_as_the_template_yields_it(body: Any) -> None:
    result = API.shape(body, *EVENT, NOW_US)

    assert isinstance(result, Shaped)
    assert API.correct(result, *EVENT, Knowledge(stale=True)) is result
    written = [orjson.dumps(one) for one in result.users]
    assert orjson.loads(API.assemble(written, result.root)) == body


@pytest.mark.parametrize("body", [None, "", {}, []])
def test_nothing_is_skipped(body: Any) -> None:
    result = API.shape(body, *EVENT, NOW_US)

    assert isinstance(result, NotSendable)
    assert result.reason is Skip.EMPTY


@pytest.mark.parametrize("url", ["https://example.com/hook?x=1", "/hook?x=1", "hook?x=1"])
def test_a_text_is_the_url(url: str) -> None:
    result = API.shape(url, *EVENT, NOW_US)

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
    result = API.shape(url, *EVENT, NOW_US)

    assert isinstance(result, NotSendable)
    assert result.reason is Death.INVALID


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"anything", Accepted()),
        (204, b"", Accepted()),
        (400, b'{"detail": "no 17"}', BodyRefused("400: no …")),
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

    assert API.classify(answer, users=1, url=URL) == verdict


def test_the_identity_may_stand_anywhere_in_the_body() -> None:
    body = {"a": [{"b": "ANN@example.com "}]}

    assert API.identifies(body, "ann@example.com")
    assert not API.identifies(body, "bob@example.com")
    assert API.identifiers(body) == frozenset()


def api(**requests: Any) -> HttpApi:
    return HttpApi(HttpRequests.model_validate(requests), hosts=("other.example.com", "*.x.org"))


def url_of(result: Shaped | NotSendable) -> str:
    assert isinstance(result, Shaped)
    return result.url


def test_a_templates_url_may_lead_to_the_listed_hosts() -> None:
    assert url_of(api().shape("https://other.example.com/a", *EVENT, NOW_US)).endswith("/a")
    assert url_of(api().shape("https://b.x.org/", *EVENT, NOW_US)) == "https://b.x.org/"
    assert isinstance(api().shape("https://x.org/", *EVENT, NOW_US), NotSendable)


@pytest.mark.parametrize(("method", "body"), [("POST", b"{}"), ("GET", b""), ("DELETE", b"")])
def test_a_url_alone_has_no_body_where_the_method_needs_none(method: str, body: bytes) -> None:
    result = api(method=method).shape("/x", *EVENT, NOW_US)

    assert isinstance(result, Shaped)
    assert api(method=method).assemble([b"{}"], result.root) == body


def test_a_delete_may_have_a_body_and_a_get_may_not() -> None:
    assert isinstance(api(method="DELETE").shape({"a": 1}, *EVENT, NOW_US), Shaped)
    refused = api(method="GET").shape({"a": 1}, *EVENT, NOW_US)
    assert isinstance(refused, NotSendable)
    assert refused.reason is Death.INVALID


def test_several_results_go_in_an_array_even_if_there_is_one() -> None:
    several = api(results=100)

    assert several.max_users == 100
    assert several.assemble([b'{"a":1}', b"[2]"], {}) == b'[{"a":1},[2]]'
    assert several.assemble([b"1"], {}) == b"[1]"


def test_an_array_of_results_has_no_place_for_urls() -> None:
    refused = api(results=2).shape("/x", *EVENT, NOW_US)

    assert isinstance(refused, NotSendable)
    assert "arrays of results" in refused.message


def test_the_key_of_a_request_depends_on_its_deliveries_alone() -> None:
    first = api().headers(["crm|live|enter|1-0|aa"])["Idempotency-Key"]

    assert first == api().headers(["crm|live|enter|1-0|aa"])["Idempotency-Key"]
    assert first != api().headers(["crm|live|enter|1-1|aa"])["Idempotency-Key"]
    assert len(first) == 32


def test_the_header_of_the_key_can_be_renamed_and_left_out() -> None:
    named = api(idempotency_header="X-Once", headers={"X-From": "us"}).headers(["a"])
    without = api(idempotency_header="").headers(["a"])

    assert named.keys() == {"X-From", "X-Once"}
    assert without == {}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (202, Failed),
        (200, Accepted),
        (404, Accepted),
        (409, Failed),
        (423, Failed),
        (422, BodyRefused),
        (500, Failed),
    ],
)
def test_which_statuses_mean_yes_and_not_now_is_configured(status: int, verdict: type) -> None:
    chosen = api(success=[200, 404], retry=[409, 423])

    said = chosen.classify(Answer(status, b""), users=1, url=URL)

    assert isinstance(said, verdict)


def test_a_refusal_to_repeat_was_surely_not_applied() -> None:
    said = api(retry=["409"]).classify(Answer(409, b""), users=1, url=URL)

    assert said == Failed("409", possibly_applied=False)


BY_INDEX = {"at": "errors"}
BY_FIELD = {"at": "items", "field": "status", "succeeded": ["2xx", "ok"], "message": "error.text"}
PRESENCE = {"at": "", "field": "error", "message": "error"}
READ: list[tuple[dict[str, Any], int, Any, dict[int, str] | None]] = [
    (BY_INDEX, 3, {}, {}),
    (BY_INDEX, 3, {"errors": []}, {}),
    (BY_INDEX, 3, {"errors": None}, {}),
    (BY_INDEX, 3, {"errors": [{"index": 1, "message": "no phone"}]}, {1: "no phone"}),
    (BY_INDEX, 3, {"errors": {"2": "bad"}}, {2: "bad"}),
    (BY_INDEX, 3, {"errors": {"2": {"message": "bad"}}}, {2: "bad"}),
    (BY_INDEX, 3, {"errors": [{"index": "0"}]}, {0: "refused"}),
    (BY_INDEX, 3, {"errors": [{"index": 3}]}, None),
    (BY_INDEX, 3, {"errors": [{"index": True}]}, None),
    (BY_INDEX, 3, {"errors": ["bad"]}, None),
    (BY_INDEX, 3, {"errors": "bad"}, None),
    (BY_INDEX, 3, None, None),
    ({"at": "a.b", "index": "pos.at"}, 2, {"a": {"b": [{"pos": {"at": 1}}]}}, {1: "refused"}),
    (BY_FIELD, 2, {"items": [{"status": 201}, {"status": "ok"}]}, {}),
    (
        BY_FIELD,
        2,
        {"items": [{"status": 400, "error": {"text": "bad"}}, {"status": 201}]},
        {0: "bad"},
    ),
    (BY_FIELD, 2, {"items": [{"status": 201}]}, None),
    (BY_FIELD, 2, {"items": [1, 2]}, None),
    (BY_FIELD, 2, {}, None),
    (BY_FIELD, 1, {"items": {"status": "no"}}, {0: "refused"}),
    (PRESENCE, 2, [{"error": "bad"}, {"error": None}], {0: "bad"}),
    (PRESENCE, 1, {"error": "bad"}, {0: "bad"}),
    (PRESENCE, 1, {"id": 7}, {}),
    ({"field": "ok", "succeeded": [True]}, 1, {"ok": 1}, {0: "refused"}),
    ({"field": "ok", "succeeded": [True]}, 1, {"ok": True}, {}),
]


@pytest.mark.parametrize(("failures", "results", "document", "refused"), READ)
def test_a_successful_answer_tells_which_results_it_refuses(
    failures: dict[str, Any], results: int, document: Any, refused: dict[int, str] | None
) -> None:
    reads = api(results=10, failures=Failures.model_validate(failures))

    said = reads.classify(Answer(200, orjson.dumps(document)), users=results, url=URL)

    if refused is None:
        assert isinstance(said, Unreadable)
    else:
        assert isinstance(said, Accepted)
        assert {position: one.message for position, one in said.refused.items()} == refused


def test_an_answer_that_was_cut_or_is_no_json_is_not_understood() -> None:
    reads = api(results=10, failures=Failures())

    for answer in (Answer(200, b"[", truncated=True), Answer(200, b"<html>")):
        assert isinstance(reads.classify(answer, users=2, url=URL), Unreadable)
