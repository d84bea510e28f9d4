"""How a token is asked for, and what an answer of its endpoint means."""

from urllib.parse import parse_qs

import orjson
import pytest

from segrelay.worker.adapters.sender import Granted, read_grant, token_request
from segrelay.worker.contract.settings import Authorization
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.core.verdicts import AccessRefused, Failed
from segrelay.worker.destinations.api import Answer, NoAnswer, Silence

WHERE = "authorizations.crm.token_url"
WITHOUT = Failed(f"{WHERE} answers 200 without an access_token", possibly_applied=False)
UNFIT = Failed(
    f"{WHERE} answers 200 without an access_token that a header can carry",
    possibly_applied=False,
)


def authorization(**more):
    return Authorization(
        name="crm",
        type="oauth2",
        token_url="https://login.example.com/token",
        client_id=Secret("literal", "us"),
        client_secret=Secret("env:S", "pass word"),
        **more,
    )


def form_of(request):
    return {name: text for name, [text] in parse_qs(request.body.decode()).items()}


def test_credentials_stand_in_the_body_with_all_that_is_configured():
    extra = {"resource": Secret("literal", "https://crm.example.com")}
    request = token_request(authorization(scope="a b", audience="crm", extra=extra))

    assert form_of(request) == {
        "grant_type": "client_credentials",
        "client_id": "us",
        "client_secret": "pass word",
        "scope": "a b",
        "audience": "crm",
        "resource": "https://crm.example.com",
    }
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}


def test_credentials_can_stand_in_a_header():
    request = token_request(authorization(credentials="basic"))

    assert request.headers["Authorization"] == "Basic dXM6cGFzcyt3b3Jk"
    assert form_of(request) == {"grant_type": "client_credentials"}


def test_a_request_for_a_token_can_be_json():
    extra = {"account_id": Secret("literal", "7")}
    request = token_request(authorization(request="json", extra=extra))

    assert orjson.loads(request.body) == {
        "grant_type": "client_credentials",
        "client_id": "us",
        "client_secret": "pass word",
        "account_id": "7",
    }
    assert request.headers == {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("life", "seconds", "renewed_after"),
    [(3600, 3600, 3540), ("300", 300, 240), (20, 20, 15), (None, 600, 540), (-1, 600, 540)],
)
def test_a_token_is_renewed_before_it_ends(life, seconds, renewed_after):
    answer = Answer(200, orjson.dumps({"access_token": "t", "expires_in": life}))

    granted = read_grant(answer, authorization())

    assert granted == Granted("t", seconds)
    assert granted.renewed_after_seconds == renewed_after
    assert "t'" not in repr(granted)


@pytest.mark.parametrize(
    ("status", "document", "verdict"),
    [
        (401, {"error": "invalid_client"}, AccessRefused(f"{WHERE} answers 401 (invalid_client)")),
        (400, {"error": "x", "error_description": "the pass is wrong"},
         AccessRefused(f"{WHERE} answers 400 (…: the … is wrong)")),
        (404, None, AccessRefused(f"{WHERE} answers 404")),
        (200, {"token": "t"}, WITHOUT),
        (200, {"access_token": "", "expires_in": 3600}, WITHOUT),
        (200, {"access_token": " "}, UNFIT),
        (200, {"access_token": "t "}, UNFIT),
        (200, {"access_token": "ä"}, UNFIT),
        (200, {"access_token": 7}, UNFIT),
        (429, {}, Failed(f"{WHERE} answers 429", possibly_applied=False)),
        (503, "down", Failed(f"{WHERE} answers 503", possibly_applied=False)),
    ],
)  # fmt: skip
def test_without_a_token_nothing_was_applied(status, document, verdict):
    assert read_grant(Answer(status, orjson.dumps(document)), authorization()) == verdict


def test_no_answer_is_a_failure_like_another():
    none = NoAnswer(Silence.UNREACHABLE, possibly_applied=False, why="its name is not known (DNS)")

    said = read_grant(none, authorization())

    cause = "no answer: its name is not known (DNS)"
    assert said == Failed(f"{WHERE}: {cause}", possibly_applied=False)
