"""The records that a drain offers to watches: renders, requests, answers and outcomes.

A drain makes none while nobody watches. An error in here ends the offering, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name
from segrelay.worker.contract.taps import (
    RETRY,
    TapKind,
    Taps,
    about,
    record_of,
    shown_content,
)
from segrelay.worker.core.verdicts import Accepted, SlowDown, TokenReplaced, Verdict
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.sending import NoAnswer
from segrelay.worker.logs import harmless

_PEOPLE: Final = 10
"""The most people of a request that its record names."""


@dataclass(frozen=True, slots=True)
class _Render:
    """Describes deliveries that a template has made a body of."""

    at: Passage

    def record(self, one: Delivery, *, reveal: bool) -> dict[str, Any]:
        return {
            **self.at.of_delivery(TapKind.RENDER, one),
            **_template(one),
            **shown_content(one.body, reveal=reveal),
        }

    def words(self, one: Delivery, *, reveal: bool) -> list[str]:
        template = one.loaded.template
        name = template.name if template else ""
        return [*_names(one), name, *_text(one.body, reveal=reveal)]


@dataclass(frozen=True, slots=True)
class _Request:
    """Describes a request, by those of its deliveries that are wanted."""

    at: Passage
    deliveries: Sequence[Delivery]
    url: str
    body: bytes
    users: int

    @property
    def public_url(self) -> str:
        """The address; a template's own may hold what identifies a person."""
        first = self.deliveries[0]
        return first.loaded.rules.url if first.shaped.url else self.url

    def record(self, found: Sequence[Delivery], *, reveal: bool) -> dict[str, Any]:
        return {
            **self.at.of_request(TapKind.REQUEST, self.deliveries, found),
            "users": self.users,
            "method": self.deliveries[0].loaded.api.method,
            "url": self.url if reveal else self.public_url,
            **shown_content(self.body, reveal=reveal),
        }

    def words(self, found: Sequence[Delivery], *, reveal: bool) -> list[str]:
        url = self.url if reveal else self.public_url
        return [url, *_names(found[0]), *_text(self.body, reveal=reveal)]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Describes the answer to a request, or why there is none.

    Args:
        body: Of the answer; b"" = there is none.
    """

    at: Passage
    deliveries: Sequence[Delivery]
    status: int | None
    verdict: str
    message: str
    body: bytes
    elapsed_seconds: float

    def record(self, found: Sequence[Delivery], *, reveal: bool) -> dict[str, Any]:
        return {
            **self.at.of_request(TapKind.ANSWER, self.deliveries, found),
            "status": self.status,
            "verdict": self.verdict,
            "message": self.message,
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            **shown_content(self.body, reveal=reveal),
        }

    def words(self, found: Sequence[Delivery], *, reveal: bool) -> list[str]:
        told = [str(self.status or ""), self.verdict, self.message]
        return [*told, *_names(found[0]), *_text(self.body, reveal=reveal)]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Describes deliveries that have ended, or will be tried again.

    Args:
        outcome: Of all of them; "" = each has its own.
        remark: On all of them; "" = each has its own.
    """

    at: Passage
    outcome: str = ""
    remark: str = ""

    def of(self, one: Delivery) -> str:
        return self.outcome or one.outcome

    def record(self, one: Delivery, *, reveal: bool) -> dict[str, Any]:
        del reveal
        return {
            **self.at.of_delivery(TapKind.OUTCOME, one),
            **_template(one),
            "outcome": self.of(one),
            "reason": one.reason.value if one.reason else None,
            "status": one.answer.status if one.answer else None,
            "attempts": one.attempts,
            "message": self.remark or one.remark,
        }

    def words(self, one: Delivery, *, reveal: bool) -> list[str]:
        del reveal
        reason = one.reason.value if one.reason else ""
        return [*_names(one), self.of(one), reason, self.remark or one.remark]


@dataclass(frozen=True, slots=True)
class Passage:
    """The partition and the clock of a drain, which all its records name.

    Args:
        now_ms: Returns the present time, by Redis' clock.
    """

    keys: PartitionKeys
    now_ms: Callable[[], int]

    def of_delivery(self, kind: TapKind, one: Delivery) -> dict[str, Any]:
        """Return the fields about a delivery."""
        return {**self._begin(kind, one), **about(one)}

    def of_request(
        self, kind: TapKind, deliveries: Sequence[Delivery], found: Sequence[Delivery]
    ) -> dict[str, Any]:
        """Return the fields about a request: its first wanted delivery, and who the others are."""
        people = dict.fromkeys(one.digest.hex() for one in found[:_PEOPLE])
        return {
            **self._begin(kind, found[0]),
            **about(found[0]),
            "triggers": list(dict.fromkeys(one.trigger for one in deliveries)),
            "deliveries": len(deliveries),
            "people": list(people),
        }

    def _begin(self, kind: TapKind, one: Delivery) -> dict[str, Any]:
        lane, _ = split_stream_name(one.stream)
        found_in = {"partition": self.keys.number, "lane": lane}
        return record_of(kind, self.now_ms(), self.keys.destination, **found_in)


@dataclass(frozen=True, slots=True)
class DrainTap:
    """Offers what one drain does to those who watch."""

    taps: Taps
    at: Passage

    def rendered(self, deliveries: Sequence[Delivery]) -> None:
        """Offer those of the deliveries that have a body."""
        with harmless("tap.failed", self.taps.forget):
            render, has = _Render(self.at), attrgetter("body")
            self.taps.offer(TapKind.RENDER, self._destination, deliveries, render, has=has)

    def sent(self, deliveries: Sequence[Delivery], *, url: str, body: bytes, users: int) -> None:
        """Offer a request that is about to be sent."""
        with harmless("tap.failed", self.taps.forget):
            description = _Request(self.at, deliveries, url, body, users)
            self.taps.offer_whole(TapKind.REQUEST, self._destination, deliveries, description)

    def answered(
        self,
        deliveries: Sequence[Delivery],
        answer: Answer | NoAnswer,
        verdict: Verdict,
        elapsed_seconds: float,
    ) -> None:
        """Offer the answer to a request, or why there is none."""
        with harmless("tap.failed", self.taps.forget):
            description = _Answer(
                self.at,
                deliveries,
                answer.status if isinstance(answer, Answer) else None,
                type(verdict).__name__,
                _message(answer, verdict),
                answer.body if isinstance(answer, Answer) else b"",
                elapsed_seconds,
            )
            self.taps.offer_whole(TapKind.ANSWER, self._destination, deliveries, description)

    def ended(self, settled: Sequence[Delivery]) -> None:
        """Offer deliveries that Redis has settled, before they forget what they were."""
        with harmless("tap.failed", self.taps.forget):
            ends = _Outcome(self.at)
            self.taps.offer(TapKind.OUTCOME, self._destination, settled, ends, ends.of)

    def retried(self, deliveries: Sequence[Delivery], message: str) -> None:
        """Offer deliveries whose request failed, and that will be tried again."""
        with harmless("tap.failed", self.taps.forget):
            tries = _Outcome(self.at, RETRY, message)
            self.taps.offer(TapKind.OUTCOME, self._destination, deliveries, tries, tries.of)

    @property
    def _destination(self) -> str:
        return self.at.keys.destination


def _names(one: Delivery) -> tuple[str, str]:
    return one.trigger, one.header.audience


def _text(content: bytes, *, reveal: bool) -> tuple[str, ...]:
    return (content.decode(errors="replace"),) if reveal else ()


def _template(one: Delivery) -> dict[str, str | None]:
    # What can't be decoded was never given its trigger.
    loaded = getattr(one, "loaded", None)
    template = loaded.template if loaded else None
    if template is None:
        return {"template": None, "template_version": None}
    return {"template": template.name, "template_version": template.content_hash}


def _message(answer: Answer | NoAnswer, verdict: Verdict) -> str:
    """Return what the verdict says; it quotes no value of the request."""
    match verdict:
        case Accepted(refused):
            return f"{len(refused)} refused: {next(iter(refused.values()))}" if refused else ""
        case SlowDown() | TokenReplaced():
            return answer.message if isinstance(answer, NoAnswer) else ""
        case _:
            return verdict.message
