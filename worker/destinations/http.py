"""Any HTTP endpoint that takes JSON: one delivery a request, the body as the template yields it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urljoin

from worker.contract.settings.urls import is_same_origin, refuse_reason
from worker.contract.words import Death, Skip
from worker.core.messages import normalise_message
from worker.core.verdicts import Accepted, Verdict
from worker.destinations.answers import classify_status, parsed
from worker.destinations.api import Answer, Knowledge, NotSendable, Occasion, Shaped

MAX_BYTES: Final = 5_000_000
_SUCCESS: Final = range(200, 300)


class HttpApi:
    """Where nothing is known of the destination but that 2xx means yes."""

    max_users: int = 1
    max_bytes: int = MAX_BYTES

    def shape(self, body: Any, occasion: Occasion) -> Shaped | NotSendable:
        """Take a body as it is; a bare text is the URL to post an empty object to.

        It may be relative to the trigger's, and stays on its host: credentials and rate are those
        of the destination.
        """
        if body is None or body in ("", [], {}):
            return NotSendable(Skip.EMPTY, "the template yields nothing")
        if type(body) is not str:
            return Shaped((body,), {})
        try:
            url = urljoin(occasion.url, body)
        except ValueError:
            return NotSendable(Death.INVALID, "the template's URL is refused: it is not a URL")
        return _to_url(url, occasion)

    def correct(
        self,
        shaped: Shaped,
        occasion: Occasion,  # noqa: ARG002 - nothing is known of the body
        knowledge: Knowledge,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Leave a body as it is: nobody knows what in it a newer event replaces."""
        return shaped

    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        """Return the one body."""
        return users[0]

    def classify(self, answer: Answer, *, users: int, url: str) -> Verdict:  # noqa: ARG002
        """Say what an answer means by its status."""
        if answer.status in _SUCCESS:
            return Accepted()
        return classify_status(answer, _said(answer))

    def identifiers(self, user: Mapping[str, Any]) -> frozenset[str]:  # noqa: ARG002
        """Return nothing: no field is known to identify a person."""
        return frozenset()

    def identifies(self, body: Any, identity_value: str) -> bool:
        """Say whether the value stands anywhere in the body."""
        return _holds(body, identity_value.strip().casefold())


def _to_url(url: str, occasion: Occasion) -> Shaped | NotSendable:
    refused = refuse_reason(url, "http")
    if refused is None and not is_same_origin(url, occasion.url):
        refused = "it leads to another host than the destination's"
    if refused:
        return NotSendable(Death.INVALID, f"the template's URL is refused: {refused}")
    return Shaped(({},), {}, url=url)


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
