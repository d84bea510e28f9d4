"""How a token is asked for, and what an answer of its endpoint means."""

import base64
from urllib.parse import parse_qs

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from segrelay.worker.contract.settings import Authorization
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.core.verdicts import AccessRefused, Failed
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.oauth2 import Granted, read_grant, token_request
from segrelay.worker.destinations.sending import NoAnswer, Silence

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


NOW = 1_700_000_000


def form_of(request):
    return {name: text for name, [text] in parse_qs(request.body.decode()).items()}


def test_credentials_stand_in_the_body_with_all_that_is_configured():
    extra = {"resource": Secret("literal", "https://crm.example.com")}
    request = token_request(authorization(scope="a b", audience="crm", extra=extra), NOW)

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
    request = token_request(authorization(credentials="basic"), NOW)

    assert request.headers["Authorization"] == "Basic dXM6cGFzcyt3b3Jk"
    assert form_of(request) == {"grant_type": "client_credentials"}


def test_a_request_for_a_token_can_be_json():
    extra = {"account_id": Secret("literal", "7")}
    request = token_request(authorization(request="json", extra=extra), NOW)

    assert orjson.loads(request.body) == {
        "grant_type": "client_credentials",
        "client_id": "us",
        "client_secret": "pass word",
        "account_id": "7",
    }
    assert request.headers == {"Content-Type": "application/json"}


def test_a_refresh_token_is_exchanged():
    given = authorization(grant="refresh_token", refresh_token=Secret("literal", "again"))

    assert form_of(token_request(given, NOW)) == {
        "grant_type": "refresh_token",
        "refresh_token": "again",
        "client_id": "us",
        "client_secret": "pass word",
    }


def test_a_new_refresh_token_takes_the_place_of_the_configured_one():
    given = authorization(grant="refresh_token", refresh_token=Secret("literal", "again"))
    answer = Answer(200, b'{"access_token": "t", "expires_in": 60, "refresh_token": "next"}')

    assert read_grant(answer, given) == Granted("t", 60, "next")
    assert read_grant(answer, authorization()) == Granted("t", 60)
    assert form_of(token_request(given, NOW, "next"))["refresh_token"] == "next"


def test_a_jwt_is_signed_with_the_private_key():
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    given = authorization(
        grant="jwt", private_key=Secret("literal", pem), key_id="k1", scope="a b", subject="who"
    )

    form = form_of(token_request(given, NOW))

    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    head, claims, signature = (
        base64.urlsafe_b64decode(part + "==") for part in form["assertion"].split(".")
    )
    signed = form["assertion"].rpartition(".")[0].encode()
    key.public_key().verify(signature, signed, PKCS1v15(), SHA256())
    assert orjson.loads(head) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert orjson.loads(claims) == {
        "iss": "us",
        "sub": "who",
        "scope": "a b",
        "aud": "https://login.example.com/token",
        "iat": NOW,
        "exp": NOW + 300,
    }


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
         AccessRefused(f"{WHERE} answers 400 (x: the … is wrong)")),
        (404, None, AccessRefused(f"{WHERE} answers 404")),
        (200, {"token": "t"}, WITHOUT),
        (200, {"access_token": None}, WITHOUT),
        (200, {"access_token": "", "expires_in": 3600}, WITHOUT),
        (200, [], WITHOUT),
        (200, {"access_token": " "}, UNFIT),
        (200, {"access_token": "t "}, UNFIT),
        (200, {"access_token": "a\nb"}, UNFIT),
        (200, {"access_token": "ä"}, UNFIT),
        (200, {"access_token": 7}, UNFIT),
        (429, {}, Failed(f"{WHERE} answers 429", possibly_applied=False)),
        (503, "down", Failed(f"{WHERE} answers 503", possibly_applied=False)),
    ],
)  # fmt: skip
def test_without_a_token_nothing_was_applied(status, document, verdict):
    assert read_grant(Answer(status, orjson.dumps(document)), authorization()) == verdict


@pytest.mark.parametrize("request_as", ["form", "json"])
def test_a_token_that_was_sent_is_not_quoted(request_as):
    first = Secret("literal", "first")
    given = authorization(grant="refresh_token", refresh_token=first, request=request_as)
    asked = token_request(given, 1_700_000_000, "rotated-and/secret")
    document = {"error": "invalid_grant", "error_description": "rotated-and/secret is over"}

    said = read_grant(Answer(400, orjson.dumps(document)), given, asked)

    assert said == AccessRefused(f"{WHERE} answers 400 (invalid_grant: … is over)")


def test_no_answer_is_a_failure_like_another():
    none = NoAnswer(Silence.UNREACHABLE, possibly_applied=False, why="its name is not known (DNS)")

    said = read_grant(none, authorization())

    cause = "no answer: its name is not known (DNS)"
    assert said == Failed(f"{WHERE}: {cause}", possibly_applied=False)
