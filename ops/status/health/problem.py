"""Problems of health: a stable name, the severity, since when, the cause, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ops.terminal.moments import shown_ms

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

    def document(self) -> dict[str, Any]:
        """Return the problem as `status --json` prints it."""
        return {
            "name": self.name,
            "severity": self.severity,
            "subject": self.subject,
            "since": shown_ms(self.since_ms, "seconds") if self.since_ms else None,
            "message": self.message,
            "command": self.command,
        }


def line_of(problem: Mapping[str, Any]) -> str:
    """Return one line of text from a problem's document."""
    of = f" {problem['subject']}" if problem["subject"] else ""
    since = f" since {problem['since']}" if problem["since"] else ""
    return (
        f"{problem['severity']}: {problem['name']}{of}{since}: {problem['message']};"
        f" {problem['command']}"
    )


def reason_of(one: Mapping[str, Any]) -> str:
    """Return the reason for the state of a destination, trigger or job, and who caused it."""
    reason = str(one.get("message") or one["reason"])
    by = one.get("by")
    return f"{reason} (by {by})" if by and by != "segrelay" else reason


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, such as `vip 1,200, new 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
