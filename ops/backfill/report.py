"""The report of a job: what was read, what became of it and when, and the rows to mend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis

from ops.backfill.view import JobView, read_view
from ops.state.partitions import all_partitions, ask_each
from ops.terminal.files import private_file
from ops.terminal.moments import shown_ms
from producer.backfill.book import JobBook
from producer.backfill.job import BadRow
from worker.contract.settings import Settings

OUTCOMES: Final = ("delivered", "skipped", "dead")
BAD_ROWS_TOLD: Final = 200
_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Span:
    """The deliveries of a job that were settled within one minute.

    Args:
        minute: The minute, counted from 1970.
        counts: The counts by kind, see OUTCOMES.
    """

    minute: int
    counts: Mapping[str, int]

    @property
    def begins_at(self) -> str:
        """Return the beginning of the minute, as RFC 3339."""
        return shown_ms(self.minute * _MINUTE_MS, "minutes")


@dataclass(frozen=True, slots=True)
class JobReport:
    """The report of a job.

    Args:
        bad_rows: At most as many as Redis keeps; `view.job.tally.refused` has the number of all.
    """

    view: JobView
    spans: Sequence[Span]
    bad_rows: Sequence[BadRow]

    def document(self) -> dict[str, Any]:
        """Return the JSON document; texts of rows stay out, `write_bad_rows` writes them."""
        reasons = Counter(row.reason for row in self.bad_rows)
        return self.view.document() | {
            "over_time": [{"minute": span.begins_at, **span.counts} for span in self.spans],
            "refused_by_reason": dict(reasons.most_common()),
            "bad_rows_kept": len(self.bad_rows),
            "bad_rows": [
                {"file": r.file, "line": r.line, "reason": r.reason, "message": r.message}
                for r in self.bad_rows[:BAD_ROWS_TOLD]
            ],
        }


def read_report(client: Redis, settings: Settings, name: str) -> JobReport:
    """Return the report of a job.

    Raises:
        UsageWrong: There is no such job.
    """
    book = JobBook(client)
    view = read_view(client, settings, book.named(name))
    return JobReport(view, list(_spans(client, settings, name)), list(book.bad_rows(name)))


def _spans(client: Redis, settings: Settings, name: str) -> Iterator[Span]:
    places = all_partitions(client, settings)
    answers = ask_each(client, places, lambda pipe, place: pipe.hgetall(place.jobtimes))
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        for raw, count in answer.items():
            job, minute, kind = raw.decode().split("|")
            if job == name:
                found[int(minute)][kind] += int(count)
    for minute in sorted(found):
        yield Span(minute, {kind: found[minute][kind] for kind in OUTCOMES})


def write_bad_rows(rows: Iterable[BadRow], path: Path) -> tuple[int, int]:
    """Write the rows as they came, a line each, to be mended and sent again; for its owner alone.

    Returns:
        How many were written, and how many were too large to be kept.
    """
    written = lost = 0
    with private_file(path) as file:
        for row in rows:
            if not row.text:
                lost += 1
                continue
            file.write(row.text.rstrip("\r\n").encode() + b"\n")
            written += 1
    return written, lost
