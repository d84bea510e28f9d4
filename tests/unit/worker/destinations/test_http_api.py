"""A destination of which nothing is known but that 2xx means yes."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from segrelay.worker.contract.settings import Authorization
from segrelay.worker.contract.settings.http import Failures, HttpRequests
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.ledger import Knowledge
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
from segrelay.worker.destinations.api import Answer, NotSendable, Shaped
from segrelay.worker.destinations.http import HttpApi, Parts
from tests.unit.worker.destinations.shaping import HEADER, NOW_US, RULES

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


URL_ALONE = Parts(has_body=False, has_url=True)


def shaped_at(url: Any, *, base_url: str = "https://example.com/v1", **more: Any) -> Any:
    made = HttpApi(parts=URL_ALONE, base_url=base_url, **more)
    return made.shape({"url": url}, *EVENT, NOW_US)


@pytest.mark.parametrize("url", ["https://example.com/v1/people/7?x=1", "/people/7?x=1"])
def test_a_template_makes_the_url_below_the_base_url(url: str) -> None:
    result = shaped_at(url)

    assert isinstance(result, Shaped)
    assert result.url == "https://example.com/v1/people/7?x=1"
    assert HttpApi(parts=URL_ALONE).assemble([b"null"], result.root) == b""


AT = HttpApi(parts=URL_ALONE, base_url="https://example.com/v1")
WITH_HEADER = HttpApi(parts=Parts(headers=("X-Person",)))


@pytest.mark.parametrize(
    ("made", "body", "reason"),
    [
        *((API, body, Skip.EMPTY) for body in (None, "", {}, [])),
        *((AT, {"url": url}, Skip.EMPTY) for url in (None, "")),
        (AT, {"url": "https://unification.useinsider.com/api/user/v1/delete"}, Death.INVALID),
        (AT, {"url": "https://example.com/api/user/%761/x/../delete"}, Death.INVALID),
        (AT, {"url": "/api//user/v1/DELETE"}, Death.INVALID),
        (AT, {"url": "https://other.example.com/hook"}, Death.INVALID),
        (AT, {"url": "/ann example"}, Death.INVALID),
        (AT, {"url": 7}, Death.INVALID),
        *((WITH_HEADER, {"body": {"a": 1}, "headers": {"X-Person": text}}, Death.INVALID)
          for text in ("a\r\nX-Evil: 1", "ä", 7, {})),
    ],
)  # fmt: skip
def test_nothing_is_skipped_and_what_can_not_be_sent_is_dead(
    made: HttpApi, body: Any, reason: Skip | Death
) -> None:
    result = made.shape(body, *EVENT, NOW_US)

    assert isinstance(result, NotSendable)
    assert result.reason is reason
    assert "X-Person" in result.message or made is not WITH_HEADER


def test_templates_make_body_url_and_headers_of_one_request() -> None:
    made = HttpApi(
        parts=Parts(has_body=True, has_url=True, headers=("X-Person", "X-None")),
        base_url="https://example.com",
    )
    headers = {"X-Person": "7", "X-None": None}

    result = made.shape({"body": {"a": 1}, "url": "/7", "headers": headers}, *EVENT, NOW_US)

    assert result == Shaped(
        ({"a": 1},), {"headers": {"X-Person": "7"}}, url="https://example.com/7"
    )
    assert made.headers(["x"], result.root)["X-Person"] == "7"


WRITTEN: list[tuple[str, Any, bytes | None]] = [
    ("json", {"a": 1}, b'{"a":1}'),
    ("json", "email=ann@example.com", None),
    ("ndjson", {"a": 1}, b'{"a":1}\n'),
    ("ndjson", "email=ann@example.com", None),
    ("form", {"email": "ann@example.com", "n": 1, "ok": True, "no": None, "tags": ["a b", "ä"]},
     b"email=ann%40example.com&n=1&ok=true&tags=a+b&tags=%C3%A4"),
    ("form", {"a": {"b": 1}}, None),
    ("form", [1], None),
    ("form", "a=1", None),
    ("text", "ä;1", "ä;1".encode()),
    ("text", {"a": 1}, None),
]  # fmt: skip


@pytest.mark.parametrize(("encoding", "body", "written"), WRITTEN)
def test_a_body_is_written_in_its_encoding_or_dead(
    encoding: str, body: Any, written: bytes | None
) -> None:
    result = api(encoding=encoding).shape(body, *EVENT, NOW_US)

    if written is None:
        assert isinstance(result, NotSendable)
        assert result.reason is Death.INVALID
    else:
        assert isinstance(result, Shaped)
        assert api(encoding=encoding).assemble([orjson.dumps(body)], result.root) == written


def test_the_content_type_is_that_of_the_encoding_unless_it_is_configured() -> None:
    form = api(encoding="form", idempotency_header="")
    own = api(encoding="text", idempotency_header="", headers={"content-type": "text/csv"})

    assert form.headers([], {}) == {"Content-Type": "application/x-www-form-urlencoded"}
    assert own.headers([], {}) == {"content-type": "text/csv"}
    assert api(idempotency_header="").headers([], {}) == {}


def test_lines_of_json_hold_all_results_of_a_request() -> None:
    lines = api(encoding="ndjson", results=9, idempotency_header="")

    assert lines.assemble([b'{"a":1}', b"[2]"], {}) == b'{"a":1}\n[2]\n'
    assert lines.headers([], {}) == {"Content-Type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("form", "results", "body"),
    [
        ({"results": 100}, [b'{"a":1}', b"[2]"], b'[{"a":1},[2]]'),
        ({"results": 100}, [b"1"], b"[1]"),
        ({"envelope": "events"}, [b"1"], b'{"events":[1]}'),
        ({"envelope": "a", "results": 9}, [b"1", b"{}"], b'{"a":[1,{}]}'),
    ],
)
def test_results_go_in_an_array_and_in_an_envelope(
    form: dict[str, Any], results: list[bytes], body: bytes
) -> None:
    assert api(**form).assemble(results, {}) == body
    assert api(**form).max_users == form.get("results", 1)


AWS = {
    "name": "aws",
    "type": "aws",
    "access_key": "AKIDEXAMPLE",
    "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "region": "us-east-1",
    "service": "service",
}


def test_a_request_is_signed_for_aws_and_one_of_s3_says_what_it_holds() -> None:
    plain, s3 = (
        HttpApi(
            HttpRequests.model_validate({"method": "PUT"}),
            authorization=Authorization.model_validate(AWS | more),
        ).signature(f"{URL}?b=1&a=2", b"{}")
        for more in ({}, {"service": "s3"})
    )

    assert plain.keys() == {"X-Amz-Date", "Authorization"}
    day = plain["X-Amz-Date"][:8]
    begins = f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/us-east-1/service/aws4_request, "
    assert plain["Authorization"].startswith(f"{begins}SignedHeaders=host;x-amz-date, Signature=")
    assert s3["X-Amz-Content-SHA256"] == hashlib.sha256(b"{}").hexdigest()
    assert api().signature(URL, b"") == {}


def test_what_is_signed_is_the_path_that_is_sent() -> None:
    signs = HttpApi(HttpRequests(), authorization=Authorization.model_validate(AWS))

    # A signature tells its second, so one of two tries is within the same.
    def signed(path: str) -> str:
        return signs.signature(f"https://example.com{path}", b"1")["Authorization"]

    assert any(signed("/a b/ü?q=x y") == signed("/a%20b/%C3%BC?q=x%20y") for _ in range(3))


REASONS: list[tuple[str, Any, str]] = [
    ("", {"message": "no plan"}, "no plan"),
    ("", {"error": "no plan"}, "no plan"),
    ("", {"error": {"message": "no plan", "code": 7}}, "no plan"),
    ("", {"error": {"code": 7}, "error_description": "no plan"}, "no plan"),
    ("", {"detail": "no plan"}, "no plan"),
    ("", {"errors": [{"code": 1}, {"detail": "no plan"}]}, "no plan"),
    ("", {"errors": ["no plan"]}, "no plan"),
    ("", "no plan", "no plan"),
    ("", {"errors": {}}, ""),
    ("result[1].why", {"message": "bad", "result": [{}, {"why": "no plan"}]}, "no plan"),
    ("result[1].why", {"message": "bad", "result": []}, "bad"),
    ("[0]", ["no plan"], "no plan"),
]


@pytest.mark.parametrize(("path", "document", "reason"), REASONS)
def test_a_refusal_says_why_where_it_is_configured_or_in_the_usual_places(
    path: str, document: Any, reason: str
) -> None:
    answer = Answer(422, orjson.dumps(document))

    said = api(reason=path).classify(answer, [b"null"] * 1, URL)

    assert said == BodyRefused(f"422: {reason}" if reason else "422")


def api(**requests: Any) -> HttpApi:
    return HttpApi(HttpRequests.model_validate(requests))


def test_the_key_of_a_request_depends_on_its_deliveries_alone() -> None:
    first = api().headers(["crm|live|enter|1-0|aa"], {})["Idempotency-Key"]

    assert first == api().headers(["crm|live|enter|1-0|aa"], {})["Idempotency-Key"]
    assert first != api().headers(["crm|live|enter|1-1|aa"], {})["Idempotency-Key"]
    assert len(first) == 32


def test_the_header_of_the_key_can_be_renamed_and_left_out() -> None:
    named = api(idempotency_header="X-Once", headers={"X-From": "us"}).headers(["a"], {})
    without = api(idempotency_header="").headers(["a"], {})

    assert named.keys() == {"X-From", "X-Once"}
    assert without == {}


SOME_ARE_CHOSEN = {"success": [200, 404], "retry": [409, 423]}


NO_PLAN = b'{"message": "no plan"}'


@pytest.mark.parametrize(
    ("chosen", "status", "body", "verdict"),
    [
        ({}, 200, b"anything", Accepted()),
        ({}, 400, b'{"detail": "no 17"}', BodyRefused("400: no …")),
        ({}, 400, b"invalid_payload", BodyRefused("400: invalid_payload")),
        ({}, 422, b"", BodyRefused("422")),
        ({}, 413, b"", TooLarge("413")),
        ({}, 401, b"", AccessRefused("401")),
        ({}, 429, b"", SlowDown(3.0)),
        ({}, 301, b"", Failed("301", possibly_applied=False)),
        ({}, 503, b"", Failed("503")),
        (SOME_ARE_CHOSEN, 202, NO_PLAN, Failed("202")),
        (SOME_ARE_CHOSEN, 404, NO_PLAN, Accepted()),
        (SOME_ARE_CHOSEN, 409, NO_PLAN, Failed("409", possibly_applied=False)),
        ({"refuse": [403, 500]}, 403, NO_PLAN, BodyRefused("403: no plan")),
        ({"refuse": [403, 500]}, 500, NO_PLAN, BodyRefused("500: no plan")),
        ({"success": ["2xx", 404]}, 404, b'{"error": "not found"}', Accepted()),
    ],
)
def test_an_answer_means_what_its_status_says_or_is_configured_to_mean(
    chosen: dict[str, Any], status: int, body: bytes, verdict: Verdict
) -> None:
    answer = Answer(status, body, retry_after="3")

    assert api(**chosen).classify(answer, [b"null"] * 1, URL) == verdict


BY_INDEX = {"at": "errors"}
BY_FIELD = {"at": "items", "field": "status", "succeeded": ["2xx", "ok"], "message": "error.text"}
PRESENCE = {"at": "", "field": "error", "message": "error"}
HALVED = "halved"
READ: list[tuple[dict[str, Any], int, Any, dict[int, str] | str | None]] = [
    (BY_INDEX, 3, {}, {}),
    (BY_INDEX, 3, {"errors": None}, {}),
    (BY_INDEX, 3, {"errors": [{"index": 1, "message": "no phone"}]}, {1: "no phone"}),
    (BY_INDEX, 3, {"errors": {"2": "bad"}}, {2: "bad"}),
    (BY_INDEX, 3, {"errors": [{"index": "0"}]}, {0: "refused"}),
    (BY_INDEX, 3, {"errors": [{"index": 3}]}, HALVED),
    (BY_INDEX, 3, {"errors": [{"index": True}]}, HALVED),
    (BY_INDEX, 3, None, None),
    (BY_INDEX, 3, {"errors": [{"index": 0}, {"email": "p9@example.com"}]}, HALVED),
    (BY_INDEX, 3, {"faults": [], "failed": 2}, HALVED),
    ({"at": "invalid"}, 3, {"invalid": {"emails": [], "ids": []}}, {}),
    ({"at": "invalid"}, 3, {"invalid": {"emails": ["p2@example.com"], "ids": []}}, HALVED),
    ({"at": "a.b", "index": "pos.at"}, 2, {"a": {"b": [{"pos": {"at": 1}}]}}, {1: "refused"}),
    (BY_FIELD, 2, {"items": [{"status": 201}, {"status": "ok"}]}, {}),
    (
        BY_FIELD,
        2,
        {"items": [{"status": 400, "error": {"text": "bad"}}, {"status": 201}]},
        {0: "bad"},
    ),
    (BY_FIELD, 2, {"items": [{"status": 201}]}, None),
    (BY_FIELD, 1, {"items": {"status": "no"}}, {0: "refused"}),
    (PRESENCE, 2, [{"error": "bad"}, {"error": None}], {0: "bad"}),
    (PRESENCE, 1, {"id": 7}, {}),
    ({"field": "ok", "succeeded": [True]}, 1, {"ok": 1}, {0: "refused"}),
    ({"field": "ok", "succeeded": [True]}, 1, {"ok": True}, {}),
    ({"at": "items", "field": "ok"}, 2, {"items": {"1": {"ok": 0}, "0": {"ok": "no"}}},
     {0: "refused"}),
    ({"at": "items", "field": "ok"}, 2, {"items": {"1": {"ok": 0}}}, HALVED),
    # That something failed is no reason to stop a destination.
    (BY_FIELD, 2, {"items": None, "error": "p1@example.com is invalid"}, HALVED),
]  # fmt: skip
TEXTS = {"at": "failedUpdates", "of": ["email", "userId"]}
ENTRIES = {"at": "errors", "of": "id", "value": "context.ids"}
MEMBERS = {"at": "errors", "of": "email_address", "value": "email_address", "message": "error"}
KEYS = {"at": "errors", "of": "person.email"}
EACH = {"at": "rows", "of": "id", "value": "key", "field": "state", "succeeded": ["ok"]}
SENT = [
    {"email": f"P{n}@example.com ", "userId": f"u{n}", "id": 70 + n, "vip": "gold",
     "email_address": f"p{n}@example.com", "person": {"email": f"p{n}@example.com"}}
    for n in range(3)
]  # fmt: skip
BY_VALUE: list[tuple[dict[str, Any], Any, dict[int, str] | str | None]] = [
    (TEXTS, {"failedUpdates": {"invalidEmails": ["p1@example.com"], "invalidUserIds": ["u2"]}},
     {1: "invalidEmails", 2: "invalidUserIds"}),
    (TEXTS, {"failedUpdates": {"invalidEmails": ["p9@example.com"]}}, HALVED),
    (TEXTS, {"failedUpdates": {"count": 1}}, HALVED),
    (TEXTS, {"failCount": 1}, HALVED),
    (TEXTS, {"failCount": 0}, {}),
    (ENTRIES, {"errors": [{"message": "no plan", "context": {"ids": ["70", "72"]}}]},
     {0: "no plan", 2: "no plan"}),
    (ENTRIES, {"errors": [{"message": "no plan", "context": {"ids": []}}]}, HALVED),
    (ENTRIES, {"errors": [{"context": {"ids": ["70"]}}, {"message": "and more"}]}, HALVED),
    (MEMBERS, {"errors": [{"email_address": "P2@example.com", "error": "fake"}], "error_count": 1},
     {2: "fake"}),
    (MEMBERS, {"errors": {"count": 2}}, HALVED),
    (KEYS, {"errors": {"p0@example.com": "no plan", "p1@example.com": "bad"}},
     {0: "no plan", 1: "bad"}),
    (KEYS, {"errors": {"p0@example.com": ["bad"]}}, {0: "bad"}),
    (KEYS, {"errors": {"p0@example.com": 1, "p9@example.com": 1}}, HALVED),
    ({"at": "errors", "of": "vip"}, {"errors": ["gold"]}, HALVED),
    (EACH, {"rows": [{"key": 72, "state": "ok"}, {"key": 70, "state": "ok"},
                     {"key": "71", "state": "no", "message": "bad"}]}, {1: "bad"}),
    (EACH, {"rows": [{"key": 72, "state": "ok"}]}, None),
    (EACH, {"rows": {"70": {"state": "ok"}, "71": {"state": "ok"}, "72": {"state": "no"}}},
     {2: "refused"}),
]  # fmt: skip


def told_by(verdict: Verdict) -> dict[int, str] | str | None:
    """Return whom a verdict refuses, that it does not say whom, or None if it is not understood."""
    if isinstance(verdict, Accepted):
        return dict(verdict.refused)
    if isinstance(verdict, BodyRefused) and verdict.partly_applied:
        return HALVED
    assert isinstance(verdict, Unreadable)
    return None


@pytest.mark.parametrize(("failures", "document", "refused"), BY_VALUE)
def test_an_answer_names_results_by_a_value_that_they_hold(
    failures: dict[str, Any], document: Any, refused: dict[int, str] | str | None
) -> None:
    said = api(results=10, failures=failures).classify(
        Answer(200, orjson.dumps(document)), [orjson.dumps(one) for one in SENT], URL
    )

    assert told_by(said) == refused


def test_a_result_that_is_a_text_is_the_value_by_which_it_is_named() -> None:
    said = api(results=10, failures={"at": "errors", "of": "email"}).classify(
        Answer(200, b'{"errors": ["b"]}'), [b'"a"', b'"b"'], URL
    )

    assert said == Accepted({1: "errors"})


@pytest.mark.parametrize(
    ("failures", "document", "verdict"),
    [
        ({"taken": "received"}, {"received": 3}, Accepted()),
        ({"taken": "received"}, {"received": 2},
         BodyRefused("200: received tells that not all were taken", partly_applied=True)),
        ({"taken": "received"}, {"received": 0},
         BodyRefused("200: received tells that not all were taken")),
        ({"taken": "done", "at": "errors"}, {"done": [1, 2], "errors": [{"index": 1}]},
         Accepted({1: "refused"})),
        ({"taken": "done", "at": "errors"}, {"done": [1], "errors": [{"index": 1}]},
         BodyRefused("200: done tells that not all were taken", partly_applied=True)),
        ({"taken": "received"}, {"received": 3.0}, Accepted()),
        ({"taken": "received"}, {"received": "2"},
         BodyRefused("200: received tells that not all were taken", partly_applied=True)),
        ({"taken": "received"}, {}, Unreadable("200: received is no number")),
        ({"taken": "received", "at": "errors"}, {"errors": [{"index": 1}]},
         Accepted({1: "refused"})),
        ({"at": "failCount"}, {"failCount": 0}, Accepted()),
        ({"at": "failCount"}, {"failCount": 1}, BodyRefused("200: failCount", partly_applied=True)),
    ],
)  # fmt: skip
def test_a_count_tells_that_some_are_missing(
    failures: dict[str, Any], document: Any, verdict: Verdict
) -> None:
    assert read(api(results=10, failures=failures), document, 3) == verdict


UNWANTED = {0: Skip.SUPPRESSED}


@pytest.mark.parametrize(
    ("status", "document", "users", "verdict"),
    [
        (422, {"error": "Unsubscribed."}, 1, Accepted({0: "422: Unsubscribed."}, UNWANTED)),
        (422, {"error": "Unsubscribed."}, 2, BodyRefused("422: Unsubscribed.")),
        (422, {"error": "resubscribed"}, 1, BodyRefused("422: resubscribed")),
        (200, {"errors": {"0": "has OPTED out", "1": "no phone"}}, 2,
         Accepted({0: "has OPTED out", 1: "no phone"}, UNWANTED)),
        (503, {"error": "unsubscribed"}, 1, Failed("503")),
    ],
)  # fmt: skip
def test_a_person_whom_the_endpoint_does_not_want_is_told_from_one_whom_it_refuses(
    status: int, document: Any, users: int, verdict: Verdict
) -> None:
    words = ["unsubscribed", "opted out", "subscribed"]
    reads = api(results=10, failures={"at": "errors", "message": ""}, suppressed=words)

    assert read(reads, document, users, status) == verdict


def read(reads: HttpApi, document: Any, results: int, status: int = 200) -> Verdict:
    return reads.classify(Answer(status, orjson.dumps(document)), [b"null"] * results, URL)


@pytest.mark.parametrize(("failures", "results", "document", "refused"), READ)
def test_a_successful_answer_tells_which_results_it_refuses(
    failures: dict[str, Any], results: int, document: Any, refused: dict[int, str] | str | None
) -> None:
    reads = api(results=10, failures=Failures.model_validate(failures))

    assert told_by(read(reads, document, results)) == refused


def test_an_answer_that_was_cut_or_is_no_json_is_not_understood() -> None:
    reads = api(results=10, failures=Failures())

    for answer in (Answer(200, b"[", truncated=True), Answer(200, b"<html>")):
        assert isinstance(reads.classify(answer, [b"null"] * 2, URL), Unreadable)


ITERABLE = {
    "successCount": 2,
    "failCount": 1,
    "invalidEmails": ["p1@example.com"],
    "invalidUserIds": [],
    "filteredOutFields": ["plan"],
    "failedUpdates": {"invalidEmails": ["p1@example.com"], "notFoundEmails": []},
}
HUBSPOT = {
    "status": "COMPLETE",
    "results": [{"id": "7"}, {"id": "8"}],
    "numErrors": 1,
    "errors": [{"status": "error", "message": "no plan", "context": {"id": ["p9@example.com"]}}],
}
MAILCHIMP = {
    "new_members": [{"email_address": "p0@example.com", "status": "subscribed"}],
    "errors": [{"email_address": "p1@example.com", "error": "p1@example.com looks fake"}],
    "total_created": 1,
    "error_count": 1,
}
UNDESCRIBED: list[tuple[Any, str]] = [
    (ITERABLE, "200: invalidEmails: <email>"),
    (HUBSPOT, "200: errors: no plan"),
    (MAILCHIMP, "200: errors: <email> looks fake"),
    ({"errors": ["no plan"]}, "200: errors: no plan"),
    ({"errors": {"email": ["is invalid"]}}, "200: errors: is invalid"),
    ({"errors": {"users": [{"message": "no plan"}]}}, "200: errors: no plan"),
    ({"failed": 2}, "200: failed"),
    ({"data": {"failedRows": 2}}, "200: failedRows"),
    ({"data": {"add": {"userErrors": [{"message": "no plan"}]}}}, "200: userErrors: no plan"),
    ({"success": False, "message": "no plan"}, "200: success is false: no plan"),
    ([{"success": 1}, {"success": 0}], "200: success is false"),
    ({"ok": "false", "message": "no plan"}, "200: ok is false: no plan"),
    ({"FailedRecordCount": 1}, "200: FailedRecordCount"),
    ({"error": "no plan"}, "200: error: no plan"),
    ({"errors": [], "error": None, "failed": 0, "success": True, "hasErrors": False}, ""),
    ({"failed": "0", "success": "true", "ok": 1}, ""),
    ({"id": 7, "failed_payments": 2, "error_page": "none", "warnings": ["old"]}, ""),
    ({"results": [{"properties": {"failed": "7"}}]}, ""),
    ("error", ""),
    (None, ""),
]


@pytest.mark.parametrize(("document", "told"), UNDESCRIBED)
def test_an_answer_that_lists_errors_is_no_yes_to_everything(document: Any, told: str) -> None:
    several = read(api(results=10), document, 3)

    assert several == (BodyRefused(told, partly_applied=True) if told else Accepted())
    assert read(api(), document, 1) == (BodyRefused(told) if told else Accepted())


def test_a_207_is_read_like_a_200() -> None:
    said = read(api(results=10), HUBSPOT, 3, status=207)

    assert said == BodyRefused("207: errors: no plan", partly_applied=True)


def test_of_an_answer_that_was_cut_only_the_status_counts_where_nothing_is_described() -> None:
    answer = Answer(200, orjson.dumps(HUBSPOT), truncated=True)

    assert api(results=10).classify(answer, [b"null"] * 3, URL) == Accepted()


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('{"errors":', "}")])
def test_errors_that_are_nested_deep_are_read_like_others(begin: str, end: str) -> None:
    deep = '{"errors":' + begin * 900 + "1" + end * 900 + "}"

    said = api(results=10).classify(Answer(200, deep.encode()), [b"null"] * 3, URL)

    assert said == BodyRefused("200: errors", partly_applied=True)
