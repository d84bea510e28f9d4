"""Faults of requests, drawn from a seeded random generator."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from segrelay.sandbox.exchange import Reply, denial, error, html_page
from segrelay.sandbox.settings import FailureRule, SandboxSettings

Takes = Literal["now", "late", "never"]


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault that the sandbox puts into one request, if any.

    Attributes:
        name: The fault's name in the log; "" = no fault.
        answer: The answer in the place of Insider's own; None = Insider's own.
        is_closed: True if the connection is closed without an answer.
    """

    name: str = ""
    takes_effect: Takes = "now"
    answer: Reply | None = None
    is_closed: bool = False


NONE: Final = Fault()
_TEXTS: Final = {
    400: "bad request",
    413: "request entity too large",
    429: "rejected: too many requests",
}
_FIRST_SERVER_ERROR: Final = 500


class Faults:
    """Draws a fault for each request, by the switches and by chance."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self._random = Random(settings.seed)  # noqa: S311 - repeatable on purpose

    def configure(self, settings: SandboxSettings) -> None:
        """Use other settings; another seed starts the draws again."""
        if settings.seed != self.settings.seed:
            self._random = Random(settings.seed)  # noqa: S311 - repeatable on purpose
        self.settings = settings

    def delay_seconds(self) -> float:
        """Draw how long the request takes."""
        jitter = self.settings.jitter_seconds
        return self.settings.latency_seconds + (jitter * self._random.random() if jitter else 0.0)

    def draw(self, path: str, body: bytes) -> Fault:
        """Draw the fault of a request; rules come before poison, poison before chance."""
        rule = self._matching_rule(path, body)
        if rule is not None:
            return _ruled(rule)
        poison, status = self.settings.poison, self.settings.poison_status
        if poison and status != 200 and poison.encode() in body:  # noqa: PLR2004 - HTTP
            return Fault("poison", "never", _failure(status))
        return self._by_chance()

    def draw_read(self, path: str, body: bytes) -> Fault:
        """Draw the fault of a request that only reads, to which only rules apply."""
        rule = self._matching_rule(path, body)
        return NONE if rule is None else _ruled(rule)

    def _matching_rule(self, path: str, body: bytes) -> FailureRule | None:
        for rule in self.settings.failures:
            if rule.path in {"", path} and rule.contains.encode() in body:  # noqa: SIM102
                if self._random.random() < rule.share:
                    return rule
        return None

    def _by_chance(self) -> Fault:
        settings, left = self.settings, self._random.random()
        for status, share in settings.error_shares.items():
            left -= share
            if left < 0:
                return self._erroneous(int(status))
        if (left := left - settings.lost_answers) < 0:
            return Fault("lost_answer", "now", is_closed=True)
        if (left := left - settings.lost_requests) < 0:
            return Fault("lost_request", "never", is_closed=True)
        if left - settings.late_share < 0:
            return Fault("late", "late", is_closed=True)
        return NONE

    def _erroneous(self, status: int) -> Fault:
        applied = (
            status >= _FIRST_SERVER_ERROR and self._random.random() < self.settings.errors_applied
        )
        takes_effect: Takes = "now" if applied else "never"
        return Fault(f"error.{status}", takes_effect, _failure(status))


def _ruled(rule: FailureRule) -> Fault:
    if rule.html:
        answer = html_page(rule.status)
    elif rule.message:
        answer = denial(rule.status, rule.message)
    else:
        answer = _failure(rule.status)
    return Fault("rule", "now" if rule.applied else "never", answer)


def _failure(status: int) -> Reply:
    if status in {401, 403}:
        return denial(status, "Access Denied")
    if status >= _FIRST_SERVER_ERROR:
        return html_page(status)
    return error(status, _TEXTS.get(status, "bad request"))
