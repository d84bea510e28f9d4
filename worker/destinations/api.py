"""The protocol of a destination's API: pure decisions about values.

Also what all APIs read alike in an answer (status, message, `Retry-After`), and the protocol of
whoever sends one request and returns its answer, or the lack of one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.settings.sections import DEFAULT_FLAG_PREFIX
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
        url: The trigger's URL as configured, a path below the base URL or absolute.
        audience_attribute: The name of the attribute that holds the list of audiences.
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
        users: The user objects that this delivery adds to a request; for an API without users, the
            one body.
        root: The body's other root options; only equal ones share a request.
        dropped: The names of the fields that could not be right and were left out.
        url: The URL that a template made; "" = none did.
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
            deliveries: The ids of all deliveries that the request carries; an id never changes.
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
            url: The absolute URL of the request.
            body: The body, as it is sent.
        """
        return {}

    @abstractmethod
    def shape(
        self, body: Any, header: Header, rules: ShapingRules, now_us: int
    ) -> Shaped | NotSendable:
        """Make one rendered body valid, or say why it can't be.

        Args:
            body: The body, as the template yielded it.
            header: The header of the delivery.
            rules: The rules of its trigger.
            now_us: The time by Redis' clock.
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
            users: The user objects as `correct` returned them, the oldest event's first.
            root: The root options that they have in common.
        """
        return None

    @abstractmethod
    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:
        """Combine users, each already JSON, into one body."""

    @abstractmethod
    def classify(self, answer: Answer, bodies: Sequence[bytes], url: str) -> Verdict:
        """Return the meaning of an answer to a request.

        Args:
            answer: The answer, of any status.
            bodies: The users of the request, each as JSON.
            url: The request's URL.
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


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """One request. Its repr shows neither credentials nor profiles.

    Args:
        url: The absolute URL, without the authorization's parameters.
        headers: The headers of the destination and of the authorization, revealed.
        params: The authorization's URL parameters, revealed.
        body: The body in the destination's encoding; b"" = none.
        api: The destination's API, which decides which URLs are refused.
        networks: The networks that may be connected to beside public addresses; None = any.
        authorization: The authorization whose token stands for `{token}` in headers and
            parameters; "" = none does.
        authority: The file with the certificate of the private authority that signed the
            endpoint's; "" = none did.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    api: str = "insider"
    method: str = "POST"
    networks: tuple[str, ...] | None = None
    authorization: str = ""
    authority: str = ""


class Silence(StrEnum):
    """The reason for a missing answer."""

    UNREACHABLE = "unreachable"
    """No connection came about."""
    CUT = "cut"
    """The connection ended before the answer did."""
    DEADLINE = "deadline"
    """The answer was not complete before the deadline."""
    STOPPED = "stopped"
    """We ended the request ourselves."""
    WITHHELD = "withheld"
    """We did not send the request: right before its first byte, the permit was refused."""
    TOKEN = "token"  # noqa: S105 - a reason
    """There was no token for the request, or its token was refused and is being replaced."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request that ended without an answer.

    Args:
        possibly_applied: False if surely nothing of the request has left, or its token was refused.
        why: The cause in words; it decides nothing.
        means: The verdict on a request without a valid token; None = its token was valid, or it
            needs none.
    """

    kind: Silence
    possibly_applied: bool
    why: str = field(default="", compare=False, kw_only=True)
    means: Verdict | None = field(default=None, kw_only=True)

    @property
    def is_ours(self) -> bool:
        """Say whether we ended the request ourselves, which says nothing about the destination."""
        return self.kind in {Silence.STOPPED, Silence.WITHHELD}

    @property
    def message(self) -> str:
        """Return a message that no answer came, and why."""
        return f"no answer: {self.why}" if self.why else f"no answer ({self.kind})"

    @property
    def verdict(self) -> Verdict:
        """Return what follows: as a rule, the request failed, and may have been applied or not."""
        return self.means or Failed(self.message, possibly_applied=self.possibly_applied)


Permit = Callable[[], Awaitable[bool]]
"""Says whether a request may still be written; asked at the last moment."""


async def granted() -> bool:
    """Permit every request to be sent."""
    return True


class Sender(Protocol):
    """Sends one request with each call; many calls may be under way."""

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send a request and read its answer to the end, all within the deadline.

        The permit is asked right before the first byte, and again right before the body: a process
        may have stood still since its last look. Without it nothing that counts has left.

        May be cancelled at any moment; once the permit was given, the request is possibly applied.

        Raises:
            ConfigurationInvalid: The URL may not be sent to, its host leads only to addresses
                that may not be connected to, or a header or parameter can't be written as HTTP.
                Nothing has left.
        """
        ...

    async def close(self) -> None: ...


def compact_json(value: Any) -> bytes:
    """Return a value as JSON text with sorted keys that takes no more memory than its length.

    What `orjson.dumps` returns keeps the room in which it was written: 4,096 bytes for a user of
    600. A batch holds thousands of them until it is settled.

    Raises:
        orjson.JSONEncodeError: It holds what JSON has no word for.
    """
    return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))


def parsed(body: bytes) -> Any:
    """Return the JSON of a body, or None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
