"""Any HTTP endpoint: what the template yields is sent as JSON, as a form or as text.

What is known of the endpoint stands in the `http` tables of the configuration: which statuses mean
yes, and where a successful answer names results that it refuses. Without a description of that, an
answer that lists errors is never taken for one that says yes to everything: who is refused is found
by halving, unless each error names one person of the request by the identity.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote, urlencode

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import digest_of, identity_text
from segrelay.worker.contract.settings.http import Failures, HttpRequests, Signature
from segrelay.worker.contract.settings.urls import is_listed, is_same_origin, join, refuse_reason
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.compact import parsed
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.core.verdicts import Accepted, BodyRefused, Failed, Unreadable, Verdict
from segrelay.worker.destinations.api import (
    Answer,
    Api,
    NotSendable,
    Shaped,
    ShapingRules,
    classify_status,
)

_SUCCESS: Final = range(200, 300)
_POSITION_DIGITS: Final = 9
_HASHES: Final = ("md5", "sha1", "sha256")
"""The digests under which endpoints take identifiers."""
_STEP: Final = re.compile(r"\[[0-9]+\]|[^.\[\]]+")
_USUAL: Final = (
    "message", "error", "error.message", "error_description", "detail", "errors[].detail",
    "errors[].message", "errors[].error", "errors[]", "title",
)  # fmt: skip
_LONGEST_TEXT: Final = 300
_NO_TEXT: Final = ("", "<")

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FAILURES: Final = (
    "error errors fail fails failed failure failures invalid rejected refused unprocessed"
)
_FAILURE_WORDS: Final = frozenset(_FAILURES.split())
_COUNTED: Final = (
    "contact contacts count detail details email emails event events has id ids item items list"
    " members message messages num number of partial profile profiles put record records result"
    " results rows total update updates user users"
)
_FAILURE_KEY_WORDS: Final = _FAILURE_WORDS.union(_COUNTED.split())
"""The words in the names of keys such as `failedUpdates`; `failed_payments` may be a person's."""
_SUCCESS_WORDS: Final = frozenset({"ok", "success", "succeeded", "successful"})
_LEVELS: Final = 2
"""The most objects and lists around a list of errors; what lies deeper may be people's data."""

RefusedResults = Mapping[int, str]


class SentResults(NamedTuple):
    """The results of a request, in their order.

    Attributes:
        number: Their number.
        identity: The profile's field by which an answer may name people; "" = none.
        people: For each, the digest of the profile that it is about.
    """

    number: int
    identity: str = ""
    people: Sequence[bytes] = ()


def is_status(status: int, listed: Sequence[str]) -> bool:
    """Say whether a status is listed, as `404` or as one of `4xx`."""
    return str(status) in listed or f"{status // 100}xx" in listed


def taken(answer: Answer, failures: Failures | None, sent: SentResults) -> Verdict:
    """Say what an answer means whose status means yes.

    Args:
        answer: The answer.
        failures: The way in which it tells which results it refuses; None = that is not known.
        sent: The content of the request.
    """
    document = None if answer.truncated else parsed(answer.body)
    if failures is None:
        return _undescribed(answer, document, sent)
    if answer.truncated:
        return Unreadable(f"{answer.status}: the answer was cut")
    found = _at(document, failures.at)
    if failures.field:
        refused = _in_order(found, failures, sent.number)
        if isinstance(refused, str):
            return Unreadable(f"{answer.status}: {refused}")
        return Accepted(refused)
    if document is None:
        return Unreadable(f"{answer.status}: the answer is no object or list")
    if found is None:
        return _undescribed(answer, document, sent)
    by_position = _by_position(found, failures, sent.number)
    if by_position is not None:
        return Accepted(by_position)
    if _is_empty(found):
        return Accepted()
    return _refused_by_name(answer, [(failures.at, found)], sent, failures)


def _undescribed(answer: Answer, document: Any, sent: SentResults) -> Verdict:
    """Say what an answer means that tells nothing where the configuration says, if it does."""
    # A status that the configuration counts as success may well come with an error's text.
    levels = _LEVELS if answer.status in _SUCCESS else -1
    told = list(_told_failures(document, levels))
    return _refused_by_name(answer, told, sent) if told else Accepted()


def _refused_by_name(
    answer: Answer,
    told: Sequence[tuple[str, Any]],
    sent: SentResults,
    failures: Failures | None = None,
) -> Verdict:
    """Refuse those whom failures name; where one names nobody, the body has to be halved."""
    refused = _by_name(told, sent, failures)
    if refused:
        return Accepted(refused)
    # A list says more than a number.
    key, found = next((one for one in told if isinstance(one[1], list | dict | str)), told[0])
    _, entry = next(_entries(key, found), (key, found))
    said = _said(entry) or said_by(answer, "")
    texts = [str(answer.status), key or "errors", *([said] if said else [])]
    return BodyRefused(": ".join(texts), partly_applied=sent.number > 1)


def _told_failures(value: Any, levels: int) -> Iterator[tuple[str, Any]]:
    """Yield what an answer that nobody described says of failures, each with its key."""
    if levels < 0:
        return
    if isinstance(value, list):
        for inner in value:
            yield from _told_failures(inner, levels - 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if inner is False and key.lower() in _SUCCESS_WORDS:
                yield f"{key} is false", True
            elif not _tells_of_failures(key):
                yield from _told_failures(inner, levels - 1)
            elif not _is_empty(inner):
                yield key, inner


@lru_cache(maxsize=1_024)
def _tells_of_failures(key: str) -> bool:
    """Say whether a key holds failures or their number, as `failedUpdates` or `error_count` do."""
    words = {word.lower() for word in _WORDS.findall(key)}
    return bool(words & _FAILURE_WORDS) and words <= _FAILURE_KEY_WORDS


def _is_empty(value: Any, levels: int = _LEVELS) -> bool:
    """Say whether there is nothing in a list, nor in the lists of an object: `{"invalid": []}`.

    A list with null for each result that was taken is empty, too.
    """
    if isinstance(value, dict) and levels:
        return all(_is_empty(inner, levels - 1) for inner in value.values())
    return all(each is None for each in value) if isinstance(value, list) else not value


def _entries(key: str, found: Any, levels: int = _LEVELS) -> Iterator[tuple[str, Any]]:
    """Yield single failures, and numbers of them, each with the key of the list or number."""
    if isinstance(found, list):
        # A number in a list is none of failures.
        yield from (
            (key, each if isinstance(each, dict | str) else [each])
            for each in found
            if each is not None
        )
    elif levels and isinstance(found, dict) and not _has_text(found):
        for name, inner in found.items():
            yield from _entries(name, inner, levels - 1)
    elif found:
        yield key, found


def _by_name(
    told: Sequence[tuple[str, Any]], sent: SentResults, failures: Failures | None = None
) -> RefusedResults | None:
    """Place failures that each name one person of the request; None = one does not.

    A number says how many failed: none may be missing.
    """
    position_of = {digest: at for at, digest in enumerate(sent.people)}
    refused: dict[int, str] = {}
    most = 0.0
    for key, entry in (each for one in told for each in _entries(*one)):
        if isinstance(entry, bool):
            continue
        if isinstance(entry, int | float):
            most = max(most, entry)
            continue
        digests = {_digest(text, sent.identity): text for text in (key, *_texts(entry))}
        named = position_of.keys() & digests
        if len(named) != 1:
            return None
        digest = named.pop()
        said = _at(entry, failures.message) if failures and failures.message else None
        said = said if isinstance(said, str) else _said(entry)
        is_name = digests[digest] == entry
        refused[position_of[digest]] = normalise_message(key if is_name else said or key)
    return refused if most <= len(refused) else None


def _digest(name: str, identity: str) -> bytes:
    """Return the digest of the profile that a text names by the identity."""
    return digest_of(f"{identity}:{identity_text(name, identity)}")


def _has_text(found: dict[str, Any]) -> bool:
    return any(isinstance(one, str) for one in found.values())


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts and keys in a value, however deep."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each
        elif isinstance(each, str):
            yield each


def _said(entry: Any) -> str:
    """Return the text of a single failure; "" where it has none."""
    return normalise_message(entry) if isinstance(entry, str) else _usual_text(entry, _USUAL)


def _by_position(found: Any, failures: Failures, results: int) -> RefusedResults | None:
    """Read entries with positions, or an object by positions; None = one has no right position."""
    refused: dict[int, str] = {}
    for position, entry in _positions(found, failures):
        if position is None or not 0 <= position < results:
            return None
        refused[position] = _message(entry, failures)
    return refused


def _in_order(found: Any, failures: Failures, results: int) -> RefusedResults | str:
    """Read a list with one entry for each result; the answer to a single one may be the entry."""
    entries = [found] if results == 1 and isinstance(found, dict) else found
    if not isinstance(entries, list) or len(entries) != results:
        return "it does not list one entry for each result that was sent"
    if not all(isinstance(entry, dict) for entry in entries):
        return "it lists other things than objects"
    return {
        position: _message(entry, failures)
        for position, entry in enumerate(entries)
        if not _has_succeeded(_at(entry, failures.field), failures.succeeded)
    }


def _has_succeeded(value: Any, succeeded: Sequence[Any]) -> bool:
    if not succeeded:
        return value in (None, False, "", [], {})
    listed = [text for text in succeeded if isinstance(text, str)]
    if type(value) is int and is_status(value, listed):
        return True
    # In Python 1 == True; in an answer they are two things.
    return any(value == wanted and type(value) is type(wanted) for wanted in succeeded)


def _positions(found: Any, failures: Failures) -> Iterator[tuple[int | None, Any]]:
    if isinstance(found, dict):
        yield from ((_position(key), entry) for key, entry in found.items())
    elif isinstance(found, list):
        yield from ((_position(_at(entry, failures.index)), entry) for entry in found)
    else:
        yield None, found


def _position(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _POSITION_DIGITS:
        return int(value)
    return value if type(value) is int else None


def said_by(answer: Answer, reason: str) -> str:
    """Return why an answer refuses, in its own words; "" where it does not say.

    Args:
        answer: Of any status.
        reason: Its path; "" = the usual paths, where it is looked for in any case.
    """
    document = parsed(answer.body)
    if document is None:
        return _plain(answer.body)
    paths = (reason, *_USUAL) if reason else _USUAL
    return _usual_text(document, paths) or normalise_message(
        document if isinstance(document, str) else ""
    )


def _usual_text(document: Any, paths: Sequence[str]) -> str:
    found = (text for path in paths if isinstance(text := _at(document, path), str) and text)
    return normalise_message(next(found, ""))


def _plain(body: bytes) -> str:
    """Return the text of an answer that is short and no page, else ""."""
    text = body[:_LONGEST_TEXT].decode(errors="replace").strip()
    return "" if text[:1] in _NO_TEXT or len(body) >= _LONGEST_TEXT else normalise_message(text)


def _at(value: Any, path: str) -> Any:
    """Return what lies at keys and `[indexes]`, joined by dots; None where there is nothing.

    `[]` is the first entry of a list that has what follows.
    """
    if not path:
        return value
    before, _, behind = path.partition("[]")
    if behind or path.endswith("[]"):
        found = _at(value, before)
        entries = found if isinstance(found, list) else ()
        inner = (_at(entry, behind.removeprefix(".")) for entry in entries)
        return next((each for each in inner if each is not None), None)
    for step in _STEP.findall(path):
        value = _step(value, step)
    return value


def _step(value: Any, step: str) -> Any:
    if step.startswith("["):
        index = int(step[1:-1])
        return value[index] if isinstance(value, list) and index < len(value) else None
    return value.get(step) if isinstance(value, dict) else None


def _message(entry: Any, failures: Failures) -> str:
    said = _at(entry, failures.message) if failures.message else entry
    said = entry if said is None else said
    return normalise_message(said) if isinstance(said, str) else "refused"


Encoding = Literal["json", "form", "text"]

CONTENT_TYPES: Final[Mapping[Encoding, str]] = {
    "json": "",  # what a sender says anyway
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}
_SCALARS: Final = (str, int, float, bool)


def misfit(body: Any, encoding: Encoding) -> str | None:
    """Say why a value can't be written in an encoding, or None where it can."""
    if encoding == "json":
        if isinstance(body, str):
            return (
                'the template yields a text, but the encoding is "json": write encoding = "text"'
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
        has_body: There is a template for the body.
        has_url: There is one for the URL.
        headers: There are some for these headers.
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
        requests: The form of requests and answers; of the destination, changed by the trigger.
        hosts: To which a template's URL may lead beside the trigger's own.
        networks: The networks that may be connected to beside public addresses.
        parts: The parts that the templates of the trigger make.
        base_url: The beginning of the URLs of templates.
        identity: The profile's field by which an answer may name people.
    """

    requests: HttpRequests = field(default_factory=HttpRequests)
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] | None = ()
    parts: Parts = BODY_ALONE
    base_url: str = ""
    identity: str = ""

    @property
    def max_users(self) -> int:
        """Return how many results a request may carry."""
        return self.requests.results

    @property
    def max_bytes(self) -> int:
        """Return how large a body may be."""
        return self.requests.max_bytes

    @property
    def method(self) -> str:
        """Return the method of every request."""
        return self.requests.method

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

    def signature(self, body: bytes, unix_seconds: int) -> Mapping[str, str]:
        """Return the headers that sign a request."""
        return signed(self.requests.sign, body, unix_seconds) if self.requests.sign else {}

    def shape(
        self,
        body: Any,
        header: Header,  # noqa: ARG002 - a body is taken whatever it is about
        rules: ShapingRules,
        now_us: int,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Take a body as it is, if it can be written in the encoding; check URL and headers."""
        if self.parts == BODY_ALONE:
            return self._whole(body, {}, "")
        parts = body if isinstance(body, dict) else {}
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
        *,
        users: int,
        url: str,  # noqa: ARG002
        people: Sequence[bytes] = (),
    ) -> Verdict:
        """Say what an answer means by its status, and by what it says of single results."""
        if is_status(answer.status, self.requests.success):
            sent = SentResults(users, self.identity, people)
            return taken(answer, self.requests.failures, sent)
        if is_status(answer.status, self.requests.retry):
            return Failed(str(answer.status), possibly_applied=answer.status not in _CLIENT_ERRORS)
        return classify_status(answer, said_by(answer, self.requests.reason))

    def identifies(self, body: Any, identity_value: str) -> bool:
        """Say whether the value stands anywhere in what is sent: as it is, in a URL, or hashed."""
        wanted = identity_value.strip().casefold()
        hashes = {hashlib.new(name, wanted.encode()).hexdigest() for name in _HASHES}
        pattern = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
        return any(
            text in hashes or pattern.search(text) or pattern.search(unquote(text))
            for text in _scalars(body)
        )

    def _url(self, yielded: Any, base: str) -> str | NotSendable:
        """Return the URL that a template yields, if it stays on the allowed hosts.

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
        if refused or is_same_origin(url, base) or is_listed(url, self.hosts):
            return refused
        return "it leads to another host than the destination's and those of http.hosts"


def _is_header(value: Any) -> bool:
    """Say whether a template's value can be a header; null = it is left out."""
    return value is None or (isinstance(value, str) and value.isascii() and value.isprintable())


def _scalars(value: Any) -> Iterator[str]:
    """Yield every text and number in a value, without the case of its letters."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _scalars(item)
    else:
        yield str(value).strip().casefold()


def signed(sign: Signature, body: bytes, unix_seconds: int) -> Mapping[str, str]:
    """Return the headers that sign a body.

    Args:
        sign: The signature; its secret is set.
        body: As it is sent.
        unix_seconds: Now.
    """
    text = signature_of(sign, sign.secret.reveal(), body, str(unix_seconds))
    value = sign.value.replace("{timestamp}", str(unix_seconds)).replace("{signature}", text)
    headers = {sign.header: value}
    return (
        headers | {sign.timestamp_header: str(unix_seconds)} if sign.timestamp_header else headers
    )


def signature_of(sign: Signature, secret: str, body: bytes, timestamp: str) -> str:
    """Return the signature of a body, in hexadecimal or base64."""
    before, marker, behind = sign.of.replace("{timestamp}", timestamp).partition("{body}")
    message = before.encode() + (body if marker else b"") + behind.encode()
    digest = hmac.digest(secret.encode(), message, sign.algorithm.removeprefix("hmac-"))
    return digest.hex() if sign.encoding == "hex" else base64.b64encode(digest).decode()
