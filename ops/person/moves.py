"""The change of one person's identity, at one destination and over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.people.forwards import Forward

Outcome = Literal["renamed", "already", "refused"]


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """A person's keys, formerly and from now on.

    Args:
        line: Of the file; 0 = of the command line.
        stable, trigger: Of a person who is renamed by themselves; see `contract.forwards`.
    """

    old: str
    new: str
    line: int = 0
    stable: str = ""
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one change, over all destinations.

    Args:
        message: Why it was refused.
    """

    change: IdentityChange
    outcome: Outcome
    message: str = ""


@dataclass(slots=True)
class PersonMove:
    """One person at one destination.

    Args:
        text: The record of the former identity as it is in Redis; b"" = there is none.
        arriving: That of the new identity.
        is_ours: Nobody else renames this person.
    """

    change: IdentityChange
    left: PartitionKeys
    arrives: PartitionKeys
    text: bytes = b""
    arriving: bytes = b""
    outcome: Outcome | None = None
    message: str = ""
    is_ours: bool = False

    @property
    def forward(self) -> Forward:
        """Return the record of the former identity."""
        return Forward.loads(self.text)

    @property
    def old_digest(self) -> bytes:
        """Return the digest of the former identity."""
        return digest_of(self.change.old)

    @property
    def new_digest(self) -> bytes:
        """Return the digest of the new identity."""
        return digest_of(self.change.new)

    def refuse(self, message: str) -> None:
        """Leave the person as they are."""
        self.outcome, self.message = "refused", message
