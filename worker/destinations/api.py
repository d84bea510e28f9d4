"""The protocol of a destination's API: pure decisions about values.

Also what all APIs read alike in an answer: status, message, `Retry-After`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.settings import DEFAULT_FLAG_PREFIX
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.core.verdicts import (
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Verdict,
)

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ShapingRules(NamedTuple):
    """The part of a trigger's configuration on which shaping depends.

    Attributes:
        url: The trigger's, as configured (a path below the base URL, or absolute).
        audience_attribute: Name of the attribute that holds the list of audiences.
        phone_region: The country of phone numbers that name none.
        audience_flag_prefix: The beginning of the names of attributes that stand for one audience
            each.
    """

    url: str
    audience_attribute: str
    phone_region: str
    audience_flag_prefix: str = DEFAULT_FLAG_PREFIX


class Shaped(NamedTuple):
    """A body made valid, ready to be combined with others.

    Attributes:
        users: The part of a request that this delivery adds; for an API without users, the one
            body.
        root: The body's other root options; only equal ones share a request.
        dropped: Names of the fields that could not be right and were left out.
        url: The URL of a template, else "".
    """

    users: tuple[Any, ...]
    root: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    url: str = ""


@dataclass(frozen=True, slots=True)
class NotSendable:
    """There is nothing valid to send."""

    reason: Death | Skip
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end (or to a sane limit: then `truncated`).

    Its headers are found in any case of their names' letters.
    """

    status: int
    body: bytes
    retry_after: str = ""
    truncated: bool = False
    headers: Mapping[str, str] = field(
        default_factory=lambda: NO_HEADERS, repr=False, compare=False
    )


class Api(ABC):
    """The rules of a destination: valid bodies, their combination, the reading of answers.

    What a destination does not know stays as it is here: no headers of its own, and nothing known
    of what a body tells.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def max_users(self) -> int:
        """Return how many users a request may have."""

    @property
    @abstractmethod
    def max_bytes(self) -> int:
        """Return how large a body may be."""

    @property
    @abstractmethod
    def method(self) -> str:
        """Return the method of every request."""

    @property
    @abstractmethod
    def networks(self) -> tuple[str, ...] | None:
        """Return the networks that may be connected to beside public addresses; None = all."""

    @property
    def words(self) -> Collection[str]:
        """Return the destination's own words that are kept of its answers, in lower case."""
        return ()

    def headers(
        self,
        deliveries: Iterable[str],  # noqa: ARG002
        root: Mapping[str, Any],  # noqa: ARG002
    ) -> Mapping[str, str]:
        """Return the headers of a request, without authorization and signature.

        Args:
            deliveries: All that the request carries, each by a text that never changes.
            root: The part that its bodies have in common.
        """
        return {}

    def signature(
        self,
        url: str,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> Mapping[str, str]:
        """Return the headers that sign a request; none where it is not signed.

        Args:
            url: The request's, absolute.
            body: As it is sent.
        """
        return {}

    @abstractmethod
    def shape(
        self, body: Any, header: Header, rules: ShapingRules, now_us: int
    ) -> Shaped | NotSendable:
        """Make one rendered body valid, or say why it can't be.

        Args:
            body: As the template yielded it.
            header: Of the delivery.
            rules: Of its trigger.
            now_us: Redis' clock.
        """

    def correct(
        self,
        shaped: Shaped,
        header: Header,  # noqa: ARG002
        rules: ShapingRules,  # noqa: ARG002
        knowledge: Knowledge,  # noqa: ARG002
    ) -> Shaped | NotSendable:
        """Correct what newer events have made untrue in a body; called right before sending."""
        return shaped

    def unite(
        self,
        users: Sequence[dict[str, Any]],  # noqa: ARG002
        root: Mapping[str, Any],  # noqa: ARG002
    ) -> dict[str, Any] | None:
        """Combine users of one person into one, or return None where each needs its own request.

        Args:
            users: As `correct` returned them, the oldest event's first.
            root: Their common root options.
        """
        return None

    @abstractmethod
    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:
        """Combine users, each already JSON, into one body."""

    @abstractmethod
    def classify(
        self,
        answer: Answer,
        *,
        users: int,
        url: str,
        people: Sequence[bytes] = (),
        bodies: Sequence[bytes] = (),
    ) -> Verdict:
        """Return the meaning of an answer to a request.

        Args:
            answer: The answer, of any status.
            users: The number of users in the request.
            url: The request's URL.
            people: For each user, the digest of the profile that it is about.
            bodies: The users, each as JSON.
        """

    def tells_data(
        self,
        shaped: Shaped,  # noqa: ARG002
        header: Header,  # noqa: ARG002
        rules: ShapingRules,  # noqa: ARG002
    ) -> bool:
        """Say whether a body holds data of the person beside memberships and events."""
        return False

    def overwrites(self, shaped: Shaped) -> bool:  # noqa: ARG002
        """Say whether a body replaces the whole list of audiences."""
        return False

    def known_by(self, shaped: Shaped) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the person's identifiers at the destination, to read the profile back."""
        return {}

    def identifiers(self, user: Mapping[str, Any]) -> Collection[str]:  # noqa: ARG002
        """Return the identifiers of a user: two users that share one are one person there."""
        return ()

    @abstractmethod
    def identifies(self, body: Any, identity_value: str) -> bool:
        """Say whether a rendered body sends this value as an identifier."""


_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 400, 401, 403
_TOO_LARGE, _TOO_MANY = 413, 429
_NOT_READ: Final = frozenset({407, 408, 425})
"""Statuses that are not about the body: proxy credentials, a timeout, a request too early."""


def retry_after_seconds(text: str) -> float | None:
    """Read `Retry-After` as the sender hands it on: seconds, as text; dates are resolved there."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def classify_status(answer: Answer, message: str) -> Verdict:
    """Say what any status but a 2xx means where the API has nothing more to say about it."""
    status = answer.status
    told = f"{status}: {message}" if message else str(status)
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return AccessRefused(told)
    if status == _TOO_LARGE:
        return TooLarge(told)
    if status == _TOO_MANY:
        return SlowDown(retry_after_seconds(answer.retry_after))
    if status in _NOT_READ:
        return Failed(str(status))
    if _BAD_REQUEST <= status < 500:  # noqa: PLR2004 - the class of a client's errors
        return BodyRefused(told)
    # A redirect is not followed: it leads elsewhere, for a while, everything that is sent.
    return Failed(str(status), possibly_applied=not 300 <= status < 400)  # noqa: PLR2004 - redirects
