"""The status on one screen, which `status --watch` draws again and again: it never scrolls.

What needs somebody stands on top. Each section has its share of the lines; what does not fit is
counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from segrelay.ops.status.pace import ProgressMeter
from segrelay.ops.status.problems import ILL, HealthProblem, in_short
from segrelay.ops.status.standing import JobStanding, Standing
from segrelay.ops.terminal.tables import wrapped
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.words import BACKFILL, LIVE, job_of_lane

if TYPE_CHECKING:
    from rich.text import Text

_RED: Final = "red"
_HEAD: Final = "bold"
_ENDED: Final = frozenset({"done", "aborted"})
_NAME: Final = 24
_LEAST_TRIGGERS: Final = 4
_LONGEST_SECONDS: Final = 7 * 86_400


class ScreenLine(NamedTuple):
    """A line of the screen; it is cut where the screen ends."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class StatusScreen:
    """One drawing of the status by `status --watch`."""

    standing: Standing
    problems: Sequence[HealthProblem]
    pace: ProgressMeter
    height: int
    width: int = 80

    def lines(self) -> list[ScreenLine]:
        """Return the lines, at most as many as there is room for."""
        sums = list(self._sums())
        problems = _cut(list(self._problems()), max(3, self.height // 4), "problems")
        below = [*self._gates(), *self._lanes(), *_table(JOBS_HEAD, list(self._jobs()), 4, "jobs")]
        room = self.height - len(sums) - len(problems) - len(below)
        below += _table(
            TRIGGERS_HEAD, list(self._triggers()), max(room, _LEAST_TRIGGERS), "triggers"
        )
        spare = self.height - len(sums) - len(problems) - len(below)
        if spare > 0 and self.problems:
            problems = self._whole_problems(len(problems) + spare)
        return [*sums, *problems, *below][: self.height]

    def _whole_problems(self, room: int) -> list[ScreenLine]:
        """Return the problems, as many as possible whole and with the command that mends them."""
        found: list[ScreenLine] = []
        for number, (one, short) in enumerate(zip(self.problems, self._problems(), strict=True)):
            commands = (f"→ {command}" for command in one.commands)
            texts = (*wrapped(f"! {one.title}: {one.message}", self.width), *commands)
            whole = [ScreenLine(text, short.style) for text in texts]
            others = len(self.problems) - number - 1  # each has a line at least
            found += whole if len(found) + len(whole) + others <= room else [short]
        return _cut(found, room, "problems")

    def drawn(self) -> list[Text]:
        """Return the lines as rich draws them."""
        from rich.text import Text  # noqa: PLC0415 - `--help` has to be quick

        return [
            Text(printable(line.text), style=line.style, no_wrap=True, overflow="ellipsis")
            for line in self.lines()
        ]

    def _sums(self) -> Iterator[ScreenLine]:
        counts, totals = self.standing.counts, self.standing.totals
        parts = (
            f"{kind} {counts.of(kind):,}{self._rate(kind)}" for kind in ("accepted", "delivered")
        )
        yield ScreenLine(f"{'  '.join(parts)}  waiting {counts.waiting:,}", _HEAD)
        oldest = totals.oldest_waiting_seconds
        waits = "" if oldest is None else f"  oldest {in_short(oldest)}"
        yield ScreenLine(
            f"skipped {counts.skipped:,}  dead {counts.dead:,}  discarded {counts.discarded:,}"
            f"  requests {counts.requests:,}{self._rate('requests')}"
            f"  in doubt {totals.intents_in_doubt:,}{waits}"
        )

    def _problems(self) -> Iterator[ScreenLine]:
        if not self.problems:
            yield ScreenLine("All is well.")
        for one in self.problems:
            style = _RED if one.severity == ILL else ""
            yield ScreenLine(f"! {one.title}: {one.message}", style)

    def _gates(self) -> Iterator[ScreenLine]:
        gates = [
            ScreenLine(
                f"{_fitted(name)}  {one.condition.state:<10}  {one.rate:>10,.0f}"
                f"  {one.factor:>6.0%}  {one.condition.why}",
                _RED if one.condition.stops else "",
            )
            for name, one in self.standing.destinations.items()
        ]
        yield from _table(GATES_HEAD, gates, 5, "destinations")

    def _lanes(self) -> Iterator[ScreenLine]:
        lanes, now_ms = self.standing.totals.lanes, self.standing.totals.now_ms
        jobs = [one for name, one in lanes.items() if job_of_lane(name)]
        parts = [
            f"{name} {one.deliveries:,} (oldest {in_short((now_ms - one.oldest_ms) / 1_000)})"
            for name in (LIVE, BACKFILL)
            if (one := lanes.get(name))
        ]
        if jobs:
            parts.append(f"jobs {sum(one.deliveries for one in jobs):,}")
        yield ScreenLine(f"lanes  {'   '.join(parts) or 'nothing waits'}")

    def _jobs(self) -> Iterator[ScreenLine]:
        for name, one in self.standing.jobs.items():
            state = one.condition.state
            if state in _ENDED:
                continue
            rate = self.pace.of(f"job|{name}")
            is_red = state in {"failed", "interrupted", "paused"}
            yield ScreenLine(
                f"{_fitted(name)}  {state:<14.14}  {one.counts.waiting:>10,}"
                f"  {_rate(rate):>8}  {self._eta(name, one)}",
                _RED if is_red else "",
            )

    def _eta(self, name: str, job: JobStanding) -> str:
        """Return when the last of its destinations will have everything."""
        is_reading = job.condition.state == "reading"
        unread = max(0, job.expected_rows - job.rows) if is_reading else 0
        seconds = 0.0
        for destination, counts in job.at.items():
            of_a_row = counts.accepted / job.rows if counts.accepted and job.rows else 1.0
            left = counts.waiting + unread * of_a_row
            rate = self.pace.of(f"job|{name}|{destination}")
            if left:
                seconds = max(seconds, left / rate if rate else inf)
        if not seconds:
            return "-"
        return f"in {in_short(seconds)}" if seconds <= _LONGEST_SECONDS else "not known"

    def _triggers(self) -> Iterator[ScreenLine]:
        subjects = {one.subject for one in self.problems}
        rows = self.standing.triggers.items()
        ordered = sorted(
            rows,
            key=lambda row: (
                row[0] not in subjects,
                -row[1].counts.waiting,
                -(self.pace.of(f"trigger|{row[0]}") or 0),
                row[0],
            ),
        )
        for name, one in ordered:
            rate = _rate(self.pace.of(f"trigger|{name}"))
            yield ScreenLine(
                f"{_fitted(name)}  {one.condition.state:<10.10}  {one.counts.waiting:>10,}"
                f"  {one.counts.delivered:>11,}  {one.counts.dead:>7,}  {rate:>8}",
                _RED if name in subjects else "",
            )

    def _rate(self, name: str) -> str:
        rate = self.pace.of(name)
        return "" if rate is None else f" {rate:+,.0f}/s"


GATES_HEAD: Final = f"{'destination':<{_NAME}}  {'state':<10}  {'rate/min':>10}  factor  reason"
JOBS_HEAD: Final = f"{'job':<{_NAME}}  {'state':<14}  {'waiting':>10}  {'a second':>8}  ends"
TRIGGERS_HEAD: Final = (
    f"{'trigger':<{_NAME}}  {'state':<10}  {'waiting':>10}  {'delivered':>11}  {'dead':>7}"
    f"  {'a second':>8}"
)


def _table(head: str, rows: Sequence[ScreenLine], most: int, what: str) -> list[ScreenLine]:
    """Return a table that is cut to a number of lines; nothing without rows."""
    return [ScreenLine(head, _HEAD), *_cut(rows, most - 1, what)] if rows else []


def _cut(rows: Sequence[ScreenLine], most: int, what: str) -> list[ScreenLine]:
    if len(rows) <= most:
        return list(rows)
    kept = rows[: most - 1]
    return [*kept, ScreenLine(f"… and {len(rows) - len(kept):,} more {what}: segrelay status")]


def _fitted(name: str) -> str:
    return f"{name:<{_NAME}}" if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"
