"""A problem of health: a stable name, the severity, since when, the cause, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from segrelay.ops.terminal.moments import shown_ms

ProblemSeverity = Literal["ill", "attention"]
ILL: Final[ProblemSeverity] = "ill"
"""The severity of a problem that customers notice, or will soon."""
ATTENTION: Final[ProblemSeverity] = "attention"
"""The severity of a problem that needs a look this week."""


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """A problem that an operator has to see.

    Args:
        name: Stable, the same in every output; docs/operating.md lists them.
        subject: The destination, trigger, job … that has it; "" = all of segrelay.
        message: The cause, in words; more follows it in the same sentence.
        since_ms: The beginning, by Redis' clock; None = not known.
    """

    name: str
    severity: ProblemSeverity
    subject: str
    message: str
    command: str
    since_ms: int | None = None

    def __post_init__(self) -> None:
        """Remove the full stop from the message, because the command follows it in a line."""
        object.__setattr__(self, "message", self.message.removesuffix("."))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> HealthProblem:
        """Return the problem of a document."""
        since = document["since"]
        since_ms = round(datetime.fromisoformat(since).timestamp() * 1_000) if since else None
        told: Any = {name: text for name, text in document.items() if name != "since"}
        return cls(**told, since_ms=since_ms)

    @property
    def title(self) -> str:
        """Return the name and the subject."""
        return f"{self.name} {self.subject}" if self.subject else self.name

    @property
    def since(self) -> str | None:
        """Return the beginning as RFC 3339."""
        return shown_ms(self.since_ms, "seconds") if self.since_ms else None

    @property
    def line(self) -> str:
        """Return the problem as one line of text."""
        since = f" since {self.since}" if self.since else ""
        return f"{self.severity}: {self.title}{since}: {self.message}; {self.command}"

    def document(self) -> dict[str, Any]:
        """Return the problem as `status --json` prints it."""
        return {
            "name": self.name,
            "severity": self.severity,
            "subject": self.subject,
            "since": self.since,
            "message": self.message,
            "command": self.command,
        }


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, such as `vip 1,200, new 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
