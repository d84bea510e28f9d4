"""The sender's protocol: it takes one request and returns an answer or the lack of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from segrelay.worker.core.verdicts import Failed, Verdict
from segrelay.worker.destinations.api import Answer


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """One request. Its repr shows neither credentials nor profiles.

    Args:
        url: Absolute, without the authorization's parameters.
        headers: The destination's own, and of the authorization, revealed.
        params: Of the authorization, revealed; added to the URL.
        body: In the destination's encoding, or nothing.
        api: The destination's; decides which URLs are refused.
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
        possibly_applied: False only where nothing of the request has left.
        why: The cause in words; it decides nothing.
    """

    kind: Silence
    possibly_applied: bool
    why: str = field(default="", compare=False, kw_only=True)

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
        """Return the verdict that the request failed, and whether it may have been applied."""
        return Failed(self.message, possibly_applied=self.possibly_applied)


@dataclass(frozen=True, slots=True)
class NoToken(NoAnswer):
    """A request that was not made, or surely not applied, because there was no valid token.

    Args:
        means: The consequence for the destination.
    """

    means: Verdict

    @property
    def verdict(self) -> Verdict:
        """Return the verdict that follows from the missing token."""
        return self.means


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

    async def close(self) -> None:
        """Close the connections."""
        ...
