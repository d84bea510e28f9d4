"""Verdicts: the meanings of a destination's answers, as values that the drain obeys.

Sure answers say what happened to each user; the others say whether the request may have taken
effect all the same, because then its intent stays open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from segrelay.worker.contract.printable import with_known_words
from segrelay.worker.contract.words import Death, Skip


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination took all users but those named.

    Args:
        refused: The reason in words for each refused user, by its index in the request.
        reasons: The outcome of a refused user where it is another one than `refused`, by the same
            index.
    """

    refused: Mapping[int, str] = field(default_factory=dict)
    reasons: Mapping[int, Skip | Death] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request was not applied: it has too many bytes or users. Split it."""

    message: str


@dataclass(frozen=True, slots=True)
class BodyRefused:
    """Something in the request's body is wrong. Halve the body to find it.

    Args:
        message: The destination's words about it.
        partly_applied: True if the destination took some of the users, and does not say which.
    """

    message: str
    partly_applied: bool = False


@dataclass(frozen=True, slots=True)
class SlowDown:
    """The request was not applied: there were too many. The answer may say when to try again."""

    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """The request was not applied: its credentials were refused. Pause the destination."""

    message: str


@dataclass(frozen=True, slots=True)
class TokenReplaced:
    """The request was not applied: its token was refused. Send it again with the next token."""


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


def quoting_nobody(
    verdict: Verdict, words: Collection[str], body: bytes, users: Sequence[bytes]
) -> Verdict:
    """Return a verdict whose messages hold known words only; see `with_known_words`.

    Args:
        verdict: The verdict with the destination's words as they came.
        words: The destination's own words, which are known too.
        body: The body that was sent, as JSON.
        users: The users that were sent, each as JSON.
    """
    match verdict:
        case Accepted(refused):
            said = {at: with_known_words(why, words, users[at]) for at, why in refused.items()}
            return replace(verdict, refused=said)
        case SlowDown() | TokenReplaced():
            return verdict
        case _:
            return replace(verdict, message=with_known_words(verdict.message, words, body))
