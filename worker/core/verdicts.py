"""Verdicts: what an answer of a destination means. They are values, and the drain obeys them.

Sure answers say what happened to each user; the others say whether the request may have taken
effect all the same, because then its note stays open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.contract.words import Death, Skip
from worker.core.messages import without_values


@dataclass(frozen=True, slots=True)
class RefusedUser:
    """The destination refuses one user, who is dead, or skipped if nothing is missing for it."""

    reason: Death | Skip
    message: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination took all users but those named.

    Args:
        refused: By index in the request's users.
    """

    refused: Mapping[int, RefusedUser] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Surely not applied: it has more bytes or users than the destination takes. Split it."""

    message: str


@dataclass(frozen=True, slots=True)
class BodyRefused:
    """Surely not applied: something in the body is wrong. Halve it until that is found."""

    message: str


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Surely not applied: there were too many requests. The answer may say when to try again."""

    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """Surely not applied: the credentials are refused. Pause the destination."""

    message: str


@dataclass(frozen=True, slots=True)
class TokenReplaced:
    """Surely not applied: the token was refused, and another one is asked for. Send it again."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The destination answered with a 5xx, or not at all.

    Args:
        message: The status or the kind of failure; no body.
        possibly_applied: False only where the request surely never left (no connection).
    """

    message: str
    possibly_applied: bool = True


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The destination answered 200 with a body that can't be understood: possibly applied."""

    message: str


Verdict = (
    Accepted
    | TooLarge
    | BodyRefused
    | SlowDown
    | AccessRefused
    | TokenReplaced
    | Failed
    | Unreadable
)


def quoting_nothing(verdict: Verdict, body: bytes, users: Sequence[bytes]) -> Verdict:
    """Return a verdict with messages that quote nothing of the request."""
    match verdict:
        case Accepted(refused):
            return Accepted(
                {
                    at: replace(each, message=without_values(each.message, users[at]))
                    for at, each in refused.items()
                }
            )
        case SlowDown() | TokenReplaced():
            return verdict
        case _:
            return replace(verdict, message=without_values(verdict.message, body))
