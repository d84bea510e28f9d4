"""Any HTTP endpoint that takes JSON: one result a request as the template yields it, or an array.

What is known of the endpoint stands in the `http` tables of the configuration: which statuses mean
yes, and where a successful answer names results that it refuses (see `http_answers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urljoin

from worker.contract.events import Header
from worker.contract.settings.http import HttpRequests
from worker.contract.settings.urls import is_listed, is_same_origin, refuse_reason
from worker.contract.words import Death, Skip
from worker.core.knowledge import Knowledge
from worker.core.messages import normalise_message
from worker.core.verdicts import Accepted, Failed, Unreadable, Verdict
from worker.destinations.answers import classify_status, parsed
from worker.destinations.api import Answer, NotSendable, Shaped, ShapingRules
from worker.destinations.http_answers import is_status, refused_results

_NO_OBJECT: Final = b"{}"
_WITHOUT_BODY: Final = frozenset({"GET", "DELETE"})
_KEY_CHARACTERS: Final = 32
_CLIENT_ERRORS: Final = range(400, 500)


@dataclass(frozen=True, slots=True)
class HttpApi:
    """An endpoint of which nothing is known but what the configuration says.

    Args:
        requests: How requests are made and read; of the destination, changed by the trigger.
        hosts: To which a template's URL may lead beside the trigger's own.
        networks: What may be connected to beside public addresses.
    """

    requests: HttpRequests = field(default_factory=HttpRequests)
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] | None = ()

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

    def headers(self, deliveries: Iterable[str]) -> Mapping[str, str]:
        """Return the configured headers, and the text that stays the same at each attempt."""
        if not self.requests.idempotency_header:
            return self.requests.headers
        key = sha256("\n".join(deliveries).encode()).hexdigest()[:_KEY_CHARACTERS]
        return {**self.requests.headers, self.requests.idempotency_header: key}

    def shape(
        self,
        body: Any,
        header: Header,  # noqa: ARG002 - a body is taken whatever it is about
        rules: ShapingRules,
        now_us: int,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Take a body as it is; a bare text is the URL of a request.

        It may be relative to the trigger's, and stays on the allowed hosts: credentials and rate
        are those of the destination.
        """
        if body is None or body in ("", [], {}):
            return NotSendable(Skip.EMPTY, "the template yields nothing")
        if type(body) is str:
            return self._to_url(body, rules.url)
        if self.method == "GET":
            return NotSendable(
                Death.INVALID, "a GET has no body: let the template yield the URL, as a text"
            )
        return Shaped((body,), {})

    def correct(
        self,
        shaped: Shaped,
        header: Header,  # noqa: ARG002 - nothing is known of the body
        rules: ShapingRules,  # noqa: ARG002
        knowledge: Knowledge,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Leave a body as it is: nobody knows what in it a newer event replaces."""
        return shaped

    def unite(
        self,
        users: Sequence[dict[str, Any]],  # noqa: ARG002
        root: Mapping[str, Any],  # noqa: ARG002
    ) -> dict[str, Any] | None:
        """Return nothing: nobody knows how two results of one person could become one."""
        return None

    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        """Return the one body, or the array of all."""
        if self.max_users > 1:
            return b"[" + b",".join(users) + b"]"
        # Only a template that yields a URL has nothing to put into a body.
        return b"" if users[0] == _NO_OBJECT and self.method in _WITHOUT_BODY else users[0]

    def classify(self, answer: Answer, *, users: int, url: str) -> Verdict:  # noqa: ARG002
        """Say what an answer means by its status, and by what it says of single results."""
        if is_status(answer.status, self.requests.success):
            return self._taken(answer, users)
        if is_status(answer.status, self.requests.retry):
            return Failed(str(answer.status), possibly_applied=answer.status not in _CLIENT_ERRORS)
        return classify_status(answer, _said(answer))

    def tells_data(
        self,
        shaped: Shaped,  # noqa: ARG002
        header: Header,  # noqa: ARG002
        rules: ShapingRules,  # noqa: ARG002
    ) -> bool:
        """Say no: what a body means is not known, and nothing in it is ever corrected."""
        return False

    def overwrites(self, shaped: Shaped) -> bool:  # noqa: ARG002
        """Say no: no field is known to be a list of audiences."""
        return False

    def known_by(self, shaped: Shaped) -> Mapping[str, Any]:  # noqa: ARG002
        """Return nothing: no profile can be read back."""
        return {}

    def identifiers(self, user: Mapping[str, Any]) -> frozenset[str]:  # noqa: ARG002
        """Return nothing: no field is known to identify a person."""
        return frozenset()

    def identifies(self, body: Any, identity_value: str) -> bool:
        """Say whether the value stands anywhere in the body."""
        return _holds(body, identity_value.strip().casefold())

    def _taken(self, answer: Answer, users: int) -> Verdict:
        failures = self.requests.failures
        if failures is None:
            return Accepted()
        if answer.truncated:
            return Unreadable(f"{answer.status}: the answer was cut")
        refused = refused_results(parsed(answer.body), failures, users)
        if isinstance(refused, str):
            return Unreadable(f"{answer.status}: {refused}")
        return Accepted(refused)

    def _to_url(self, text: str, base: str) -> Shaped | NotSendable:
        refused = self._refused(text, base)
        if refused is None:
            return Shaped(({},), {}, url=urljoin(base, text))
        return NotSendable(Death.INVALID, f"the template's URL is refused: {refused}")

    def _refused(self, text: str, base: str) -> str | None:
        if self.max_users > 1:
            return "this destination takes arrays of results (http.results); it needs 1 for URLs"
        try:
            url = urljoin(base, text)
        except ValueError:
            return "it is not a URL"
        refused = refuse_reason(url, "http")
        if refused or is_same_origin(url, base) or is_listed(url, self.hosts):
            return refused
        return "it leads to another host than the destination's and those of http.hosts"


def _said(answer: Answer) -> str:
    document = parsed(answer.body)
    if not isinstance(document, dict):
        return ""
    for key in ("error", "message", "detail", "title"):
        if isinstance(document.get(key), str):
            return normalise_message(document[key])
    return ""


def _holds(value: Any, wanted: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(item, wanted) for item in value.values())
    if isinstance(value, list):
        return any(_holds(item, wanted) for item in value)
    return str(value).strip().casefold() == wanted
