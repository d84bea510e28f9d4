"""`segrelay send`: a file's payloads into Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from ops.cli.console import Progress, note, print_json, progress, say
from producer.files import batches, digest_of_file, opened
from producer.matching import routing_digest
from producer.payloads import Payload
from producer.publish import Publisher, lane_for
from producer.published import Problem, Published
from producer.reading import read_payloads
from producer.room import Room, count_waiting
from worker.contract.connection import connect, resolve_url, wait_ready
from worker.contract.durations import parse_duration
from worker.contract.settings import Settings, load_settings
from worker.contract.words import LIVE
from worker.errors import RedisUnavailable, UsageWrong

PROBLEMS_LISTED: Final = 10_000
"""So that a file without one good line does not fill the memory; all of them are counted."""

_PROBLEMS_SHOWN: Final = 10
_FULL_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2
_TOLD_AGAIN_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Totals:
    """What became of the payloads so far."""

    payloads: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0
    repeated: int = 0
    line: int = 0
    position: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, published: Published, batch: list[Payload]) -> None:
        self.payloads += published.payloads
        self.events += published.events
        self.accepted += published.accepted
        self.unmatched += published.unmatched
        self.refused += published.refused
        self.repeated += published.repeated
        self.line = batch[-1].line
        self.position += len(batch)
        self.problems += published.problems[: PROBLEMS_LISTED - len(self.problems)]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a file goes.

    Args:
        source: Digest with which an interrupted job goes on where it stopped; "" = it can't.
    """

    publisher: Publisher
    lane: str
    job: str
    source: str
    timeout_seconds: float | None


def send(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="NDJSON or JSON.")],
    *,
    lane: Annotated[str, typer.Option(help="live or backfill.")] = LIVE,
    job: Annotated[
        str, typer.Option(help="A name: a lane of its own, which goes on where it was interrupted.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when nothing waits.")] = False,
    timeout: Annotated[
        str, typer.Option(help="Wait at most so long, e.g. 90s or 15m.", metavar="DURATION")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any was refused.")] = False,
) -> None:
    """Put the payloads of a file into Redis."""
    timeout_seconds = _seconds(timeout)
    into = lane_for(lane, job)
    with opened(source) as stream:
        settings = load_settings()
        url = resolve_url(settings.redis)
        wait_ready(url)
        client = connect(url)
        digest = digest_of_file(source, salt=routing_digest(settings)) if job else ""
        target = _Target(Publisher(client, settings), into, job, digest, timeout_seconds)
        totals = _Totals()
        with progress("sent") as shown:
            _send_all(read_payloads(stream), target, totals, shown)
    _report(source, totals, target, as_json=as_json)
    if wait and not _wait(client, settings, timeout_seconds):
        raise typer.Exit(1)
    if strict and totals.refused:
        raise typer.Exit(1)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise UsageWrong(f"--timeout: {error}; write 90s or 15m.") from error


def _send_all(
    payloads: Iterable[Payload], target: _Target, totals: _Totals, shown: Progress
) -> None:
    try:
        for batch in batches(payloads):
            published = _publish(batch, target, totals)
            totals.add(published, batch)
            shown.advance(published.payloads)
    except KeyboardInterrupt:
        note(f"Interrupted. {_unsure(target, totals)}")
        raise


def _publish(batch: list[Payload], target: _Target, totals: _Totals) -> Published:
    """Publish a batch; again and again for a job, whose positions make that harmless.

    Raises:
        RedisUnavailable: With what is sure.
    """
    deadline = time.monotonic() + (target.timeout_seconds or _AGAIN_SECONDS)
    position = totals.position + len(batch) if target.source else None
    while True:
        _await_room(target, totals)
        try:
            return target.publisher.publish(
                batch, target.lane, job=target.job, position=position, source=target.source
            )
        except RedisUnavailable as error:
            if not target.source or time.monotonic() >= deadline:
                raise RedisUnavailable(f"{error.message} {_unsure(target, totals)}") from error
            time.sleep(_POLL_SECONDS)


def _unsure(target: _Target, totals: _Totals) -> str:
    """Say what is sure after a write without an answer, and what to do."""
    if target.source:
        return f"{_sure(totals)}; the same command goes on exactly where it stopped."
    return (
        f"{_sure(totals)}, from line {totals.line + 1} on it is unsure. Sending those again is "
        "safe: what is there twice is delivered once."
    )


def _sure(totals: _Totals) -> str:
    if not totals.line:
        return "Nothing is surely in Redis yet"
    return f"Up to line {totals.line} everything is in Redis"


def _await_room(target: _Target, totals: _Totals) -> None:
    """Wait until there is room, with a line that says for what.

    Raises:
        RedisUnavailable: Redis was full for too long, or is not there.
    """
    begun = time.monotonic()
    told_at = begun - _TOLD_AGAIN_SECONDS
    while True:
        limit = target.timeout_seconds
        try:
            room = target.publisher.room(target.lane)
            if isinstance(room, Room):
                return
            message = room.message
            limit = _FULL_SECONDS if limit is None and room.reason == "memory" else limit
        except RedisUnavailable as error:
            message = error.message
            limit = _AGAIN_SECONDS if limit is None else limit
        now = time.monotonic()
        if limit is not None and now - begun >= limit:
            raise RedisUnavailable(f"{message} {_sure(totals)}, and nothing behind it.")
        if now - told_at >= _TOLD_AGAIN_SECONDS:
            note(f"waiting: {message}")
            told_at = now
        time.sleep(_POLL_SECONDS)


def _wait(client: Any, settings: Settings, timeout_seconds: float | None) -> bool:
    """Wait until nothing waits; say so and return False where that takes too long."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while waiting := count_waiting(client, settings):
        if deadline is not None and time.monotonic() >= deadline:
            note(
                f"{waiting} deliveries still wait after {timeout_seconds:g} s. "
                "Does a worker run? `segrelay status` tells what they wait for."
            )
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _report(source: str, totals: _Totals, target: _Target, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(totals))
    else:
        say(
            f"{totals.payloads:,} payloads, {totals.events:,} events: {totals.accepted:,} "
            f"deliveries accepted, {totals.unmatched:,} unmatched, {totals.refused:,} refused"
        )
        for problem in totals.problems[:_PROBLEMS_SHOWN]:
            note(f"line {problem.line}[{problem.index}]: {problem.reason}: {problem.message}")
        if totals.refused > _PROBLEMS_SHOWN:
            note(f"… and {totals.refused - _PROBLEMS_SHOWN:,} more problems")
    if not totals.payloads:
        note(f"{source} holds no payloads.")
    if totals.repeated:
        note(
            f"{totals.repeated:,} deliveries were in Redis already, from an earlier run of job "
            f"'{target.job}' over the same file."
        )
    if totals.unmatched or totals.refused:
        note("What was refused or unmatched is kept: `segrelay quarantine list`.")


def _document(totals: _Totals) -> dict[str, Any]:
    return {
        "payloads": totals.payloads,
        "events": totals.events,
        "accepted": totals.accepted,
        "unmatched": totals.unmatched,
        "refused": totals.refused,
        "repeated": totals.repeated,
        "problems": [
            {
                "line": problem.line,
                "index": problem.index,
                "reason": problem.reason,
                "message": problem.message,
            }
            for problem in totals.problems
        ],
    }
