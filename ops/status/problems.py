"""A problem of health, and the table of open problems, which decides when a message is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

import orjson

from segrelay.ops.terminal.moments import shown_ms
from segrelay.worker.contract import keys
from segrelay.worker.contract.records import read_record
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings.sections import NotifySettings

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
        message: The cause, and what to do that no command does, in words.
        command: The command that shows or mends the problem, to be copied as it is. Several are
            separated by `; `; "" = no command helps.
        since_ms: The beginning, by Redis' clock; None = not known.
    """

    name: str
    severity: ProblemSeverity
    subject: str
    message: str
    command: str
    since_ms: int | None = None

    def __post_init__(self) -> None:
        """Remove the full stop from the message, because texts go on behind it."""
        object.__setattr__(self, "message", self.message.removesuffix("."))

    @property
    def title(self) -> str:
        """Return the name and the subject."""
        return f"{self.name} {self.subject}" if self.subject else self.name

    @property
    def since(self) -> str | None:
        """Return the beginning as RFC 3339."""
        return shown_ms(self.since_ms, "seconds") if self.since_ms else None

    @property
    def commands(self) -> list[str]:
        """Return the commands one by one."""
        return self.command.split("; ") if self.command else []

    @property
    def lines(self) -> list[str]:
        """Return the problem as lines of text: the cause, then the commands."""
        since = f" since {self.since}" if self.since else ""
        first = f"{self.severity}: {self.title}{since}: {self.message}"
        return [first, *(f"→ {one}" for one in self.commands)]

    def document(self) -> dict[str, Any]:
        """Return the problem as `status --json` prints it."""
        shown = ("name", "severity", "subject", "since", "message", "command")
        return {name: getattr(self, name) for name in shown}


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, such as `vip 1,200, new 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


UNHEARD: Final = "notify_fails"
"""The problem that messages are not taken; it is not told to those who do not take them."""
CALM_MS: Final = 10_000
"""The time without a problem after which it is over."""
SETTLES_MS: Final = 10_000
"""The time for which a lesser problem has to last to be told, because it may become ill."""
LONGEST_WAIT_MS: Final = 60_000
MOST_OPEN: Final = 200
OPEN: Final = "open"
_FAILING: Final = "failing"
AlertKind = Literal["problem", "problem_lasts", "problem_over"]


class PostResult(NamedTuple):
    """The reason why a message was not taken; "" = it was. In doubt = it may have been."""

    failure: str = ""
    is_in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class OpenProblem:
    """A problem that was seen, and what was told about it.

    Args:
        seen_ms: The time when it was seen last.
        told_ms: The time of the last message; 0 = there was none.
        told_severity: The severity in that message.
    """

    problem: HealthProblem
    since_ms: int
    seen_ms: int
    told_ms: int = 0
    told_severity: str = ""


@dataclass(frozen=True, slots=True)
class AlertFailure:
    """The reason why the last message was not taken, and the failed tries in a row."""

    since_ms: int
    tries: int
    reason: str
    last_ms: int = 0


@dataclass(slots=True)
class AlertTable:
    """The open problems by name and subject, and why the last message was not taken.

    Args:
        least_ms: The shortest time for which a problem has to last to be told.
    """

    settings: NotifySettings
    problems: dict[str, OpenProblem] = field(default_factory=dict)
    failing: AlertFailure | None = None
    least_ms: int = 0

    @classmethod
    def read(cls, settings: NotifySettings, text: bytes, client: Redis) -> AlertTable:
        """Return the table that Redis keeps, without what can't be read."""
        stored = orjson.loads(text or b"{}").items()
        read = {key: read_record(OpenProblem, one) for key, one in stored}
        return cls(settings, {key: one for key, one in read.items() if one}, read_failure(client))

    def fields(self) -> dict[str, bytes]:
        """Return the fields of the hash in which Redis keeps the table."""
        failing = orjson.dumps(self.failing) if self.failing else b""
        return {OPEN: orjson.dumps(self.problems), _FAILING: failing}

    def observe(self, problems: Iterable[HealthProblem], now_ms: int) -> None:
        """Enter the problems that are there now; the clock may have been set back."""
        seen: dict[str, HealthProblem] = {}
        for one in problems:
            key = f"{one.name}|{one.subject}"
            told = [seen[key].message] if key in seen else []
            seen[key] = replace(one, message="; ".join([*told, one.message]))
        known = {
            key: replace(
                one,
                since_ms=min(one.since_ms, now_ms),
                seen_ms=min(one.seen_ms, now_ms),
                told_ms=min(one.told_ms, now_ms),
            )
            for key, one in self.problems.items()
            if key in seen or one.told_ms or (self.failing and self._has_stood(one))
        }
        for key, problem in seen.items():
            entry = known.get(key) or OpenProblem(problem, now_ms, now_ms)
            dated = replace(problem, since_ms=problem.since_ms or entry.since_ms)
            known[key] = replace(entry, problem=dated, seen_ms=now_ms)
        self.problems = dict(sorted(known.items(), key=lambda each: each[1].seen_ms)[-MOST_OPEN:])

    def tell_next(self, post: Callable[[AlertKind, OpenProblem], PostResult], now_ms: int) -> bool:
        """Send the first message that is due; return whether there was one and it was taken."""
        before = self.failing
        wait_ms = min(LONGEST_WAIT_MS, 1_000 * 2 ** (before.tries - 1)) if before else 0
        due = ((key, one, self._due(one, now_ms)) for key, one in self.problems.items())
        key, one, kind = next((each for each in due if each[2]), ("", None, None))
        if not one or not kind or (before and 0 <= now_ms - before.last_ms < wait_ms):
            return False
        result = post(kind, one)
        # A message without an answer is sent once more, and no third time.
        if not result.failure or (result.is_in_doubt and before):
            told = replace(one, told_ms=now_ms, told_severity=one.problem.severity)
            self.problems[key] = told
            if kind == "problem_over":
                del self.problems[key]
        since_ms, tries = (before.since_ms, before.tries) if before else (now_ms, 0)
        failing = AlertFailure(since_ms, tries + 1, result.failure, now_ms)
        self.failing = failing if result.failure else None
        return not result.failure

    def _due(self, one: OpenProblem, now_ms: int) -> AlertKind | None:
        is_ill, told_ms = one.problem.severity == ILL, one.told_ms
        if now_ms - one.seen_ms >= CALM_MS:
            return "problem_over"
        if not told_ms or (is_ill and one.told_severity != ILL):
            return "problem" if self._has_stood(one) else None
        remind_ms = 1_000 * self.settings.remind_after_seconds
        return "problem_lasts" if is_ill and 0 < remind_ms <= now_ms - told_ms else None

    def _has_stood(self, one: OpenProblem) -> bool:
        least_ms = self.least_ms if one.problem.severity == ILL else SETTLES_MS
        held_ms = max(1_000 * self.settings.after_seconds, least_ms)
        return one.seen_ms - one.since_ms >= held_ms


def read_failure(client: Redis) -> AlertFailure | None:
    """Return why messages were not taken lately; None = the last one was."""
    stored: Any = client.hget(keys.ALERTS, _FAILING)
    return read_record(AlertFailure, stored) if stored else None


def forget_failure(client: Redis) -> None:
    """Forget that messages were not taken: one was, just now."""
    client.hdel(keys.ALERTS, _FAILING)
