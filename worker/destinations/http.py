"""Any HTTP endpoint: what the template yields is sent as JSON, as a form or as text.

What is known of the endpoint stands in the `http` tables of the configuration. What its answers say
of single results is read in `answers`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

import httpx
import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.settings.http import Authorization, HttpRequests
from segrelay.worker.contract.settings.urls import is_same_origin, join, refuse_reason
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.verdicts import Accepted, BodyRefused, Failed, Verdict
from segrelay.worker.destinations.answers import is_status, said_by, taken
from segrelay.worker.destinations.api import (
    Answer,
    Api,
    NotSendable,
    Shaped,
    ShapingRules,
    classify_status,
)

Encoding = Literal["json", "ndjson", "form", "text"]

CONTENT_TYPES: Final[Mapping[Encoding, str]] = {
    "json": "",  # what a sender says anyway
    "ndjson": "application/x-ndjson",
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}
_SCALARS: Final = (str, int, float, bool)


def misfit(body: Any, encoding: Encoding) -> str | None:
    """Say why a value can't be written in an encoding, or None where it can."""
    if encoding in {"json", "ndjson"}:
        if isinstance(body, str):
            return (
                f'the template yields a text, but the encoding is "{encoding}": write'
                ' encoding = "text"'
                " for a body, or url = { template = … } for a URL"
            )
        return None
    if encoding == "text":
        return None if isinstance(body, str) else (
            'the template yields no text, but the encoding is "text"'
        )  # fmt: skip
    if not isinstance(body, dict):
        return 'the template yields no object, but the encoding is "form"'
    wrong = next((name for name, value in body.items() if not _fits_a_form(value)), None)
    return wrong and f"{wrong} is neither a text, a number, true, false, nor a list of these"


def encoded(user: bytes, encoding: Encoding) -> bytes:
    """Return a body, given as JSON, written in its encoding."""
    if encoding == "json":
        return user
    if encoding == "ndjson":
        return user + b"\n"
    body = orjson.loads(user)
    return body.encode() if encoding == "text" else urlencode(list(_fields(body))).encode()


def _fits_a_form(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(one is None or isinstance(one, _SCALARS) for one in values)


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a form; a list becomes one field for each value, null none."""
    for name, value in body.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield name, one if isinstance(one, str) else orjson.dumps(one).decode()


_KEY_CHARACTERS: Final = 32
_CLIENT_ERRORS: Final = range(400, 500)
_CONTENT_TYPE: Final = "content-type"


class Parts(NamedTuple):
    """The choices of a trigger that templates make, beside the body.

    Attributes:
        has_body: True if a template makes the body.
        has_url: True if a template makes the URL.
        headers: The names of the headers that templates make.
    """

    has_body: bool = True
    has_url: bool = False
    headers: tuple[str, ...] = ()


BODY_ALONE: Final = Parts()


@dataclass(frozen=True, slots=True)
class HttpApi(Api):
    """An HTTP endpoint that is described by the configuration alone.

    What a body tells is not known: nothing in it is corrected, united or read back.

    Args:
        requests: The form of requests and answers: the destination's, as the trigger changes it.
        networks: The networks that may be connected to beside public addresses.
        parts: The parts that the templates of the trigger make.
        base_url: The URL with which the URLs of templates begin.
        authorization: The credentials, if they sign requests.
    """

    requests: HttpRequests = field(default_factory=HttpRequests)
    networks: tuple[str, ...] | None = ()
    parts: Parts = BODY_ALONE
    base_url: str = ""
    authorization: Authorization | None = None

    @property
    def max_users(self) -> int:
        return self.requests.results

    @property
    def max_bytes(self) -> int:
        return self.requests.max_bytes

    @property
    def method(self) -> str:
        return self.requests.method

    @property
    def words(self) -> Collection[str]:
        """Return the configured words that are kept of answers."""
        texts = (*self.requests.words, *self.requests.suppressed)
        return {word for text in texts for word in (text.lower(), *text.lower().split())}

    def headers(self, deliveries: Iterable[str], root: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the headers of a request; an idempotency key stays the same at each attempt."""
        headers = {**self.requests.fixed_headers, **root.get("headers", {})}
        content_type = CONTENT_TYPES[self.requests.encoding]
        if content_type and not any(name.lower() == _CONTENT_TYPE for name in headers):
            headers["Content-Type"] = content_type
        if not self.requests.idempotency_header:
            return headers
        key = hashlib.sha256("\n".join(deliveries).encode()).hexdigest()[:_KEY_CHARACTERS]
        return {**headers, self.requests.idempotency_header: key}

    def signature(self, url: str, body: bytes) -> Mapping[str, str]:
        if not self.authorization:
            return {}
        return _signed_for_aws(self.authorization, self.method, url, body)

    def shape(
        self,
        body: Any,
        header: Header,  # noqa: ARG002 - a body is taken whatever it is about
        rules: ShapingRules,
        now_us: int,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Take a body as it is, if it can be written in the encoding; check URL and headers."""
        is_whole = self.parts == BODY_ALONE
        parts = {"body": body} if is_whole else body if isinstance(body, dict) else {}
        url = self._url(parts.get("url"), rules.url) if self.parts.has_url else ""
        if isinstance(url, NotSendable):
            return url
        headers = {name: parts.get("headers", {}).get(name) for name in self.parts.headers}
        wrong = next((name for name, text in headers.items() if not _is_header(text)), None)
        if wrong is not None:
            return NotSendable(Death.INVALID, f"the template of {wrong} yields no header's text")
        headers = {name: text for name, text in headers.items() if text}
        root = {"headers": headers} if headers else {}
        if not self.parts.has_body:
            return Shaped((None,), root, url=url)
        return self._whole(parts.get("body"), root, url)

    def _whole(self, body: Any, root: Mapping[str, Any], url: str) -> Shaped | NotSendable:
        if body is None or body in ("", [], {}):
            return NotSendable(Skip.EMPTY, "the template yields nothing")
        wrong = misfit(body, self.requests.encoding)
        if wrong:
            return NotSendable(Death.INVALID, wrong)
        return Shaped((body,), root, url=url)

    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        """Return the only body, or the array of all bodies, within the envelope if there is one."""
        if not self.parts.has_body:
            return b""
        if self.requests.encoding == "ndjson":
            return b"".join(encoded(user, "ndjson") for user in users)
        envelope = self.requests.envelope
        if self.max_users == 1 and not envelope:
            return encoded(users[0], self.requests.encoding)
        array = b"[" + b",".join(users) + b"]"
        # A template of the whole request is rendered by whoever sends it.
        is_key = isinstance(envelope, str) and envelope
        return b"{" + orjson.dumps(envelope) + b":" + array + b"}" if is_key else array

    def classify(
        self,
        answer: Answer,
        bodies: Sequence[bytes],
        url: str,  # noqa: ARG002
    ) -> Verdict:
        """Say what an answer means by its status, and by what it says of single results.

        A person whom the endpoint does not want is told from one whose data it refuses. A request
        that carries nobody else is no reason then to look who is to blame.
        """
        verdict = self._read(answer, bodies)
        if (
            isinstance(verdict, BodyRefused)
            and len(bodies) == 1
            and self._suppresses(verdict.message)
        ):
            verdict = Accepted({0: verdict.message})
        if not isinstance(verdict, Accepted):
            return verdict
        refused = verdict.refused.items()
        return replace(
            verdict,
            reasons={at: Skip.SUPPRESSED for at, said in refused if self._suppresses(said)},
        )

    def _suppresses(self, said: str) -> bool:
        """Say whether a refusal names one of the configured texts, as whole words in any case."""
        texts = map(re.escape, self.requests.suppressed)
        return any(re.search(rf"(?<!\w){text}(?!\w)", said, re.IGNORECASE) for text in texts)

    def _read(self, answer: Answer, sent: Sequence[bytes]) -> Verdict:
        if is_status(answer.status, self.requests.success):
            return taken(answer, self.requests.failures, sent)
        if is_status(answer.status, self.requests.refuse):
            said = said_by(answer, self.requests.reason)
            return BodyRefused(f"{answer.status}: {said}" if said else str(answer.status))
        if is_status(answer.status, self.requests.retry):
            return Failed(str(answer.status), possibly_applied=answer.status not in _CLIENT_ERRORS)
        return classify_status(answer, said_by(answer, self.requests.reason))

    def _url(self, yielded: Any, base: str) -> str | NotSendable:
        """Return the URL that a template yields, if it stays on the destination's host.

        Credentials and rate are those of the destination.
        """
        if yielded in (None, ""):
            return NotSendable(Skip.EMPTY, "the template of the URL yields nothing")
        if not isinstance(yielded, str):
            return NotSendable(Death.INVALID, "the template of the URL yields no text")
        url = join(self.base_url or base, yielded)
        refused = self._refused(url, base)
        if refused is None:
            return url
        return NotSendable(Death.INVALID, f"the template's URL is refused: {refused}")

    def _refused(self, url: str, base: str) -> str | None:
        refused = refuse_reason(url, "http")
        if refused or is_same_origin(url, base):
            return refused
        return "it leads to another host than the destination's"


def _signed_for_aws(
    authorization: Authorization, method: str, url: str, body: bytes
) -> Mapping[str, str]:
    """Return the headers by which AWS knows who sent a request, with the time of now.

    Signature Version 4 is made by `botocore`, which the extra `s3` brings.

    Args:
        authorization: The authorization, of the type `aws`; its secrets are set.
        method: The method of the request.
        url: The absolute URL; what is signed is what httpx makes of it, because that is sent.
        body: The body as it is sent.
    """
    # Only those who sign pay for it.
    from botocore.auth import S3SigV4Auth, SigV4Auth  # noqa: PLC0415
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    assert authorization.access_key is not None
    assert authorization.secret_key is not None
    credentials = Credentials(authorization.access_key.reveal(), authorization.secret_key.reveal())
    signs = S3SigV4Auth if authorization.service == "s3" else SigV4Auth
    request = AWSRequest(method, str(httpx.URL(url)), data=body)
    signs(credentials, authorization.service, authorization.region).add_auth(request)
    return dict(request.headers)


def _is_header(value: Any) -> bool:
    """Say whether a template's value can be a header; null = it is left out."""
    return value is None or (isinstance(value, str) and value.isascii() and value.isprintable())
