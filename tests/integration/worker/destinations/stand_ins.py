"""Strict stand-ins for the APIs of `docs/destinations.md`, each as its vendor documents it.

A stand-in says whom a request is about, or raises an assertion where the request is not what the
API takes; and it says in the API's words that all are taken but one.
"""

import base64
import hashlib
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.journeys.endpoint import Came

NAMES = ("Ada", "Bea", "Cem", "Dan", "Eve", "Fay")
PEOPLE = tuple(f"{name.lower()}@example.com" for name in NAMES)
REFUSED = PEOPLE[2]
IN_CAPITALS = REFUSED.upper()
"""The refused person's address in letters of another case, as some APIs answer it."""
WORDS = "the plan is unknown"
"""Why somebody is refused."""

SECRETS = {
    "BRAZE_AUTHORIZATION": "Bearer a-key-of-braze",
    "KLAVIYO_AUTHORIZATION": "Klaviyo-API-Key a-key-of-klaviyo",
    "HUBSPOT_AUTHORIZATION": "Bearer a-token-of-hubspot",
}
"""Values of variables; each other variable has its own name in small letters as its value."""


def secret(name: str) -> str:
    return SECRETS.get(name, name.lower().replace("_", "-"))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


WHO = {
    text: who
    for who, name in zip(PEOPLE, NAMES, strict=True)
    for text in (
        who,
        hashlib.sha256(who.encode()).hexdigest(),
        f"{name[0]}.O. entered vip",
    )
}
"""Whom a text of a request is about."""

Answer = tuple[int, Any]


@dataclass(frozen=True)
class StandIn:
    """A stand-in for one API.

    Args:
        path: Of its requests, as a pattern.
        headers: What has to stand in them.
        items: Returns the items of a request; asserts that it is what the API takes.
        names: Returns the text by which an item names a person.
        some: The answer to a request of which the refused person is a part, by position, if the
            others are taken; None = the whole request is refused.
        refusal: The answer to a request that is refused as a whole.
        taken: The answer to a request of which all is taken, by the number of items.
        said: What the dead letter of the refused person says.
    """

    path: str
    items: Callable[[Came], list[Any]]
    names: Callable[[Any], str]
    refusal: Answer = (400, {"message": WORDS})
    headers: dict[str, str] | None = None
    some: Callable[[int, int], Answer] | None = None
    taken: Callable[[int], Answer] = lambda _: (200, {})
    method: str = "POST"
    most: int = 1
    said: str = WORDS

    def people(self, came: Came, path: str) -> list[str]:
        """Return whom a request is about."""
        assert (came.method, bool(re.fullmatch(self.path, path))) == (self.method, True)
        content = {"content-type": "application/json"}
        for name, value in (content | (self.headers or {})).items():
            assert came.headers.get(name) == value, name
        items = self.items(came)
        assert 1 <= len(items) <= self.most
        return [WHO[self.names(item)] for item in items]

    def answer(self, people: list[str]) -> Answer:
        if REFUSED not in people:
            return self.taken(len(people))
        if self.some is None:
            return self.refusal
        return self.some(people.index(REFUSED), len(people))


def bearer(name: str) -> dict[str, str]:
    """Return the header with the token that the token endpoint of a stand-in issues."""
    return {"authorization": f"Bearer a-token-of-{name}"}


def _sfmc_token(came: Came) -> None:
    assert came.headers["content-type"] == "application/json"
    assert came.body == {
        "grant_type": "client_credentials",
        "client_id": "sfmc-client-id",
        "client_secret": "sfmc-client-secret",
        "account_id": "sfmc-account-id",
    }


def _ansira_token(came: Came) -> None:
    assert came.headers["content-type"] == "application/x-www-form-urlencoded"
    form = {name: text for name, [text] in parse_qs(came.raw.decode()).items()}
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "enrich")
    assert form["client_secret"] == "ansira-client-secret"


TOKENS = {"sfmc": _sfmc_token, "ansira": _ansira_token}


def _array(key: str) -> Callable[[Came], list[Any]]:
    def items(came: Came) -> list[Any]:
        assert came.body.keys() == {key}
        return list(came.body[key])

    return items


def _one(came: Came) -> list[Any]:
    assert isinstance(came.body, dict)
    return [came.body]


def _klaviyo(came: Came) -> list[Any]:
    assert came.body["data"]["type"] == "profile"
    return [came.body["data"]["attributes"]]


def _iterable(_: int, number: int) -> Answer:
    failed = {"invalidEmails": [IN_CAPITALS], "invalidUserIds": [], "notFoundEmails": []}
    return 200, {"successCount": number - 1, "failCount": 1, "failedUpdates": failed} | failed


def _hubspot(_: int, number: int) -> Answer:
    error = {"message": WORDS, "context": {"objectWriteTraceId": [IN_CAPITALS]}}
    done = [{}] * (number - 1)
    return 207, {"status": "COMPLETE", "results": done, "numErrors": 1, "errors": [error]}


def _mailchimp(came: Came) -> list[Any]:
    email = came.body["email_address"]
    digest = hashlib.md5(email.encode(), usedforsecurity=False).hexdigest()
    assert came.path.endswith(f"/{digest}")
    assert came.body["status_if_new"] == "subscribed"
    return [email]


def _meta(came: Came) -> list[Any]:
    query = parse_qs(urlsplit(came.path).query)
    assert query == {
        "access_token": ["meta-access-token"],
        "appsecret_proof": ["meta-appsecret-proof"],
    }
    assert all(abs(one["event_time"] - time.time()) < 7 * 86_400 for one in came.body["data"])
    return list(came.body["data"])


def _segment(came: Came) -> list[Any]:
    assert all(one["type"] in {"track", "identify"} for one in came.body["batch"])
    return list(came.body["batch"])


def _gateway(came: Came) -> list[Any]:
    """Check that a request is signed; how, is `botocore`'s work."""
    given = came.headers["authorization"]
    scope = f"{came.headers['x-amz-date'][:8]}/eu-central-1/execute-api/aws4_request"
    assert given.startswith(f"AWS4-HMAC-SHA256 Credential=aws-access-key-id/{scope}, ")
    assert "host;x-amz-date" in given
    lines = came.raw.decode().split("\n")
    assert lines.pop() == ""
    events = [orjson.loads(line) for line in lines]
    IDS.update({one["person"]["email"]: one["id"] for one in events})
    return [one["person"]["email"] for one in events]


IDS: dict[str, str] = {}
"""The ids of people in requests to the gateway."""


def _soap(came: Came) -> list[Any]:
    member = ET.fromstring(came.raw)[0][0]  # noqa: S314 - it comes from our own template
    assert member.tag == "{urn:audience}setMember"
    return [member[0].text]


FAULT = f"""<?xml version="1.0"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><soap:Fault>
<faultcode>soap:Client</faultcode><faultstring>{WORDS}</faultstring>
</soap:Fault></soap:Body></soap:Envelope>
""".encode()


def _email(item: Any) -> str:
    return str(item["email"])


def _errors(position: int, number: int) -> Answer:
    error = {"type": WORDS, "input_array": "attributes", "index": position}
    return 201, {"message": "success", "attributes_processed": number - 1, "errors": [error]}


STAND_INS = {
    "braze": StandIn(
        "/users/track",
        _array("attributes"),
        lambda item: item["email"],
        headers={"authorization": SECRETS["BRAZE_AUTHORIZATION"]},
        some=_errors,
        taken=lambda number: (201, {"message": "success", "attributes_processed": number}),
        most=75,
    ),
    "klaviyo": StandIn(
        "/api/profile-import",
        _klaviyo,
        _email,
        headers={"authorization": SECRETS["KLAVIYO_AUTHORIZATION"], "revision": "2026-10-15"},
        refusal=(400, {"errors": [{"status": 400, "code": "invalid", "detail": WORDS}]}),
    ),
    "customerio": StandIn(
        "/api/v1/segments/7/add_customers",
        _array("ids"),
        str,
        headers={"authorization": basic("customerio-site-id", "customerio-api-key")},
        refusal=(400, {"errors": [{"detail": WORDS, "status": "400"}]}),
        most=1_000,
    ),
    "iterable": StandIn(
        "/api/users/bulkUpdate",
        _array("users"),
        _email,
        headers={"api-key": "iterable-key"},
        some=_iterable,
        taken=lambda number: (200, {"successCount": number, "failCount": 0, "failedUpdates": {}}),
        most=1_000,
        said="invalidEmails",
    ),
    "hubspot": StandIn(
        "/crm/objects/2026-03/contacts/batch/upsert",
        _array("inputs"),
        lambda item: item["id"] if item["idProperty"] == "email" else "",
        headers={"authorization": SECRETS["HUBSPOT_AUTHORIZATION"]},
        some=_hubspot,
        taken=lambda number: (200, {"status": "COMPLETE", "results": [{}] * number}),
        most=100,
    ),
    "sfmc": StandIn(
        "/hub/v1/dataevents/key:audiences/rowset",
        lambda came: list(came.body),
        lambda item: item["keys"]["Email"],
        headers=bearer("sfmc"),
        refusal=(400, {"message": WORDS, "errorcode": 10006}),
        taken=lambda number: (200, [{"keys": {}, "values": {}}] * number),
        most=100,
    ),
    "mailchimp": StandIn(
        "/3.0/lists/a1b2c3d4e5/members/[0-9a-f]{32}",
        _mailchimp,
        str,
        headers={"authorization": basic("segrelay", "mailchimp-key")},
        refusal=(400, {"title": "Invalid Resource", "status": 400, "detail": WORDS}),
        method="PUT",
    ),
    "slack": StandIn(
        "/services/T00/B00/secret",
        _one,
        lambda item: item["text"],
        refusal=(400, b"the plan is unknown"),
        taken=lambda _: (200, b"ok"),
    ),
    "segment": StandIn(
        "/v1/batch",
        _segment,
        lambda item: item["context"]["traits"]["email"],
        headers={"authorization": basic("segment-write-key", "")},
        most=2_500,
    ),
    "meta": StandIn(
        "/v26.0/0000000000/events",
        _meta,
        lambda item: item["user_data"]["em"][0],
        refusal=(400, {"error": {"message": WORDS, "type": "OAuthException", "code": 100}}),
        taken=lambda number: (200, {"events_received": number, "messages": []}),
        most=1_000,
    ),
    "ansira": StandIn(
        "/v1/people",
        _one,
        _email,
        headers=bearer("ansira"),
        refusal=(422, {"error": "x", "message": WORDS}),
    ),
    "gateway": StandIn(
        "/prod/people",
        _gateway,
        str,
        headers={"content-type": "application/x-ndjson"},
        some=lambda *_: (200, {"rejected": {IDS[REFUSED]: WORDS}}),
        taken=lambda _: (200, {"rejected": {}}),
        most=500,
    ),
    "soap": StandIn(
        "/services/audience",
        _soap,
        str,
        headers={
            "content-type": "text/xml; charset=utf-8",
            "soapaction": "urn:setMember",
            "authorization": basic("soap-user", "soap-password"),
        },
        refusal=(500, FAULT),
        said="500",
        taken=lambda _: (200, b"<?xml version='1.0'?><ok/>"),
    ),
}
