"""`segrelay status`: how everything stands, once or live, as text, as a screen, or as JSON."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from segrelay.ops.state.opened import already_there, opened
from segrelay.ops.state.partitions import KINDS, Counts, largest_first
from segrelay.ops.state.waiting import times
from segrelay.ops.status.health import problems_of, read_problems
from segrelay.ops.status.problems import ILL, HealthProblem, counted, in_short
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    JobStanding,
    Standing,
    TriggerStanding,
    WatchedFile,
    read_newest,
    read_standing,
)
from segrelay.ops.terminal.console import mention, print_json, print_result, say, table
from segrelay.ops.terminal.frame import Table
from segrelay.ops.terminal.options import Json
from segrelay.ops.terminal.tables import (
    TableColumns,
    count_columns,
    laid_out,
    number_columns,
    text_columns,
    wrapped,
)
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.processes import Process
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.url import READY_SECONDS
from segrelay.worker.contract.settings import (
    SANDBOX_VARIABLE,
    Settings,
    load_settings,
    sandbox_url,
)
from segrelay.worker.errors import (
    ConfigurationInvalid,
    OperationsMustAct,
    RedisUnavailable,
    SegrelayError,
    UsageWrong,
)

_EXPLAINED: Final = frozenset({"paused", "stopped", "refused", "waits", "failed", "interrupted"})
"""States that are shown with their reason."""


def tell(standing: Standing) -> None:
    """Print the status: fitted to a terminal, plain text elsewhere."""
    problems = problems_of(standing)
    for line in lines(standing):
        say(line)
    for line in (line for problem in problems for line in problem.lines):
        say(line, is_ill=True)
    for one in sections(standing, problems):
        say("")
        table(one.columns, one.rows, one.ill)


def sum_of(counts: Counts, rates: Mapping[str, float] | None = None) -> str:
    """Return the six counts as a sum, with their growth."""
    accepted, *others = (f"{kind} {counts.of(kind):,}" for kind in KINDS)
    told = f"{accepted} = {' + '.join(others)}"
    if rates is None:
        return told
    grown = (f"{kind} {rates[kind]:,.0f}" for kind in ("accepted", "delivered"))
    return f"{told}; a second: {', '.join(grown)}"


def screen(
    standing: Standing, rates: Mapping[str, float] | None, height: int, width: int
) -> Iterator[tuple[str, str]]:
    """Yield the status as lines with their styles, as many as a screen has.

    Each part has the same share of the lines, and what others leave; what does not fit is counted.
    """
    problems = problems_of(standing)
    found = [wrapped(line, width) for problem in problems for line in problem.lines]
    parts = [
        [(line, "") for text in lines(standing, rates) for line in wrapped(text, width)],
        [(line, "red") for text in found for line in text] or [("All is well.", "")],
    ]
    for one in sorted(sections(standing, problems), key=lambda one: one.columns[0] == "trigger"):
        rows = [[printable(str(cell)) for cell in row] for row in one.rows]
        (head,), *blocks = laid_out(one.columns, rows, width)
        styled = ((block, "red" if at in one.ill else "") for at, block in enumerate(blocks))
        parts.append([(head, "bold"), *((line, s) for block, s in styled for line in block)])
    share = height // len(parts)
    spare = height - sum(min(share, len(part)) for part in parts)
    for part in parts:
        room = min(len(part), share + spare)
        spare -= max(0, room - share)
        rest = len(part) - room + 1
        yield from part[: room - (rest > 1)]
        if rest > 1:
            yield f"… and {rest:,} more lines: segrelay status", ""


def lines(standing: Standing, rates: Mapping[str, float] | None = None) -> Iterator[str]:
    """Yield the lines of the status above its tables."""
    counts, totals = standing.counts, standing.totals
    yield sum_of(counts, rates)
    if counts.skipped_by_reason:
        yield f"skipped: {counted(counts.skipped_by_reason)}"
    if counts.dead_by_reason:
        yield f"dead: {counted(counts.dead_by_reason)}"
    if totals.oldest_waiting_seconds is not None:
        yield f"the oldest waits for {in_short(totals.oldest_waiting_seconds)}"
    yield (
        f"requests {counts.requests:,}, unanswered {counts.unanswered:,}, "
        f"deliveries sent again {counts.resent:,}, in doubt {totals.intents_in_doubt:,}"
    )
    if standing.quarantined:
        yield f"quarantined {standing.quarantined:,}: `segrelay quarantine list`"
    for name, watch in standing.watches.items():
        yield f"watch {name}: {watch.line()}"
    for what, count in standing.retention.dropped.items():
        if count:
            yield f"dropped {count:,} {what} that were kept for long enough"
    if totals.dropped_fields:
        yield f"fields left out: {counted(largest_first(totals.dropped_fields))}"


def sections(standing: Standing, problems: Sequence[HealthProblem]) -> Iterator[Table]:
    """Yield the tables of destinations, triggers, jobs and processes."""
    number, text = number_columns, text_columns

    def drawn(columns: TableColumns, rows: Iterable[Sequence[str]], ill: Container[str]) -> Table:
        listed = list(rows)
        return Table(columns, listed, {at for at, row in enumerate(listed) if row[0] in ill})

    def ill_ones(*kinds: str) -> set[str]:
        return {one.subject for one in problems if one.name.startswith(kinds)}

    yield drawn(
        ("destination", "state", *number("rate/min", "factor"), *text("reason")),
        (
            (name, one.condition.state, f"{one.rate:,.0f}", f"{one.factor:.0%}", one.condition.why)
            for name, one in standing.destinations.items()
        ),
        ill_ones("destination_"),
    )
    subjects = {one.subject for one in problems}
    triggers = sorted(
        standing.triggers.items(),
        key=lambda one: (one[0] not in subjects, -one[1].counts.waiting, one[0]),
    )
    yield drawn(
        ("trigger", *text("state"), *count_columns(*KINDS), *text("template")),
        ((name, _state(t.condition), *_six(t.counts), _template(t)) for name, t in triggers),
        ill_ones("trigger_", "template_", "live_", "dead_")
        | {name for name, one in triggers if one.condition.state == "orphaned"},
    )
    if standing.jobs:
        jobs = sorted(standing.jobs.items(), key=lambda one: one[1].condition.has_ended)
        rows = ((name, _state(job.condition), *_six(job.counts)) for name, job in jobs)
        yield drawn(("job", *text("state"), *count_columns(*KINDS)), rows, ill_ones("job_"))
    if standing.processes:
        found = {f"{one.host}:{one.pid}": one for one in standing.processes}
        yield drawn(
            ("worker", "version", *text("configuration")),
            ((name, one.version or "-", _config(standing, one)) for name, one in found.items()),
            {
                name
                for name, one in found.items()
                if not standing.is_current(one) or one.doubted or one.refused_messages
            },
        )


def _six(counts: Counts) -> Iterator[str]:
    return (f"{counts.of(kind):,}" for kind in KINDS)


def _config(standing: Standing, process: Process) -> str:
    text = process.config
    if not standing.is_current(process):
        text += " (older than what was started last)"
    elif process.config != standing.settings.fingerprint:
        text += " (another than this file)"
    for name, count in process.doubted.items():
        text += f"; the compiled form of {name} is off (it differed from Jsonnet {times(count)})"
    return text


def _template(trigger: TriggerStanding) -> str:
    """Describe a trigger's template: its versions at work, and refused changes."""
    text = " and ".join(trigger.versions) or "-"
    if trigger.refused:
        text += f"; the file was changed and is broken, so this one is kept: {trigger.refused}"
    return text


def _state(condition: Condition) -> str:
    if condition.why and condition.state in _EXPLAINED:
        return f"{condition.state}: {condition.why}"
    return condition.state


def read_status(client: Redis, settings: Settings) -> dict[str, Any]:
    """Read the standing and return its document, without problems."""
    return document_of(read_standing(client, settings))


def judged_document(standing: Standing) -> dict[str, Any]:
    """Return the document of `segrelay status`, with the problems."""
    problems = [one.document() for one in problems_of(standing)]
    return {**document_of(standing), "problems": problems}


def document_of(standing: Standing) -> dict[str, Any]:
    """Return the document of `segrelay status` without problems."""
    totals = standing.totals
    return {
        **asdict(standing.counts),
        "triggers": {
            name: _trigger(one, totals.orphans[name]) for name, one in standing.triggers.items()
        },
        "jobs": {name: _flat(one) for name, one in standing.jobs.items()},
        "destinations": {name: _destination(one) for name, one in standing.destinations.items()},
        "lanes": {
            name: {
                "waiting": one.deliveries,
                "oldest_seconds": max(0, totals.now_ms - one.oldest_ms) / 1_000,
            }
            for name, one in sorted(totals.lanes.items())
        },
        "oldest_waiting_seconds": totals.oldest_waiting_seconds,
        "in_doubt": totals.intents_in_doubt,
        "orphaned": totals.orphans.total(),
        "orphans": largest_first(totals.orphans),
        "refused_destinations": dict(standing.refused_destinations),
        "quarantined": standing.quarantined,
        "too_large_requests": standing.receivers.ever.get(413, 0),
        "dropped_fields": largest_first(totals.dropped_fields),
        "responses": {"waiting": standing.responses.waiting, "lost": standing.responses.lost},
        "watches": {name: asdict(one) for name, one in standing.watches.items()},
        "retention": standing.retention.document(),
        "template_files": {name: asdict(one) for name, one in standing.template_files.items()},
        "processes": [
            {name: getattr(one, name) for name in _OF_PROCESS}
            | {"current": standing.is_current(one)}
            for one in standing.processes
        ],
    }


def _condition(one: Condition) -> dict[str, Any]:
    document: dict[str, Any] = {"state": one.state, "reason": one.reason}
    if one.state == "paused":
        at = datetime.fromtimestamp(one.since_ms / 1_000, UTC) if one.since_ms else None
        document |= {"since": at.isoformat(timespec="seconds") if at else "", "by": one.by}
    return document


def _destination(one: DestinationStanding) -> dict[str, Any]:
    requests = one.requests
    return {
        **_condition(one.condition),
        "message": one.condition.message,
        "rate": one.rate,
        "factor": one.factor,
        "since_ms": one.condition.since_ms or 0,
        "requests": {
            "by_status": dict(requests.by_status),
            "users": requests.users,
            "seconds": requests.times.document(),
        },
        "delivery_seconds": {
            kind: {since: times.document() for since, times in by_since.items()}
            for kind, by_since in requests.delivery_times.items()
        },
        "letters": one.dead_letters,
    }


def _flat(one: TriggerStanding | JobStanding) -> dict[str, Any]:
    """Return a standing with its counts and its condition beside the other fields."""
    document = asdict(one)
    del document["condition"]
    return {**document.pop("counts"), **_condition(one.condition), **document}


def _trigger(one: TriggerStanding, orphaned: int) -> dict[str, Any]:
    document = _flat(one) | {"orphaned": orphaned}
    if one.condition.state in {"refused", "waits"}:
        document["lasting"] = one.condition.is_lasting
    return document


_OF_PROCESS: Final = (
    "host", "pid", "kind", "version", "config", "doubted", "clock_ahead_seconds", "refused",
    "refused_messages",
)  # fmt: skip


EXIT_ILL: Final = 1
UNREACHABLE: Final = 3
"""Exit code of `status --check` without Redis; `EXIT_ILL` means that there are problems."""

_EVERY_SECONDS: Final = 1.0
_LOOKS: Final = 11
"""Looks at the counts that are kept, one a second."""


def status(
    *,
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Draw it on the terminal again and again, until Ctrl-C."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Print only what is wrong, for a monitor.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="With --check: also what is worth a look this week.")
    ] = False,
    notify_test: Annotated[
        bool,
        typer.Option("--notify-test", help="Send a test message to operate.notify.url, and end."),
    ] = False,
) -> None:
    """Show how everything stands: accepted = delivered + skipped + dead + discarded + waiting.

    Problems stand on top: each with its name, its cause, and the command that shows or mends it.
    The exit code of --check is 0 if all is well, 1 if something is ill (customers notice it, or
    will soon), 3 if Redis can't be reached; --check starts no embedded Redis.
    """
    if watch + check + notify_test > 1:
        raise UsageWrong("--watch, --check and --notify-test exclude each other: give one of them.")
    if watch and (as_json or not sys.stdout.isatty()):
        raise UsageWrong(
            "--watch draws on a terminal. Elsewhere call `segrelay status --json` again and again."
        )
    if attention and not check:
        raise UsageWrong("--attention belongs to --check.")
    if notify_test:
        _test_messages(as_json=as_json)
        return
    if check:
        raise typer.Exit(_checked(as_json=as_json, attention=attention))
    with opened(ready_seconds=READY_SECONDS, patient=False) as (settings, client):
        if watch:
            _watch(client, settings)
        elif as_json:
            print_json(judged_document(read_standing(client, settings)))
        else:
            tell(read_standing(client, settings))


def _test_messages(*, as_json: bool) -> None:
    """Send a test message to operate.notify.url."""
    from segrelay.ops.status.alerts import (  # noqa: PLC0415 - needs an HTTP client
        OpenProblem,
        forget_failure,
        post,
    )

    settings = load_settings()
    notify = settings.operate.notify
    if sandbox_url(os.environ):
        raise ConfigurationInvalid(
            f"A sandbox run sends no messages; unset {SANDBOX_VARIABLE} to try operate.notify.url."
        )
    if notify is None:
        raise ConfigurationInvalid(
            f'{settings.source.name} has no [operate.notify]; add it, with url = "env:NAME".'
        )
    message = "this is a test: messages about problems arrive here"
    test = HealthProblem("test", ILL, "", message, "segrelay status")
    now_ms = round(time.time() * 1_000)
    alert = OpenProblem(test, now_ms, now_ms)
    failure = post("problem", alert, notify, settings.operate.docs_url).failure
    if as_json:
        print_json({"sent": not failure, "reason": failure})
    if not failure:
        with suppress(SegrelayError), already_there() as (_, client):
            forget_failure(client)
    if failure:
        raise OperationsMustAct(
            f"The address of operate.notify.url ({notify.url.origin}) took no message: {failure}."
            " See whether the URL is right, and can be reached from this machine."
        )
    if not as_json:
        say("The test message was taken.")


def _checked(*, as_json: bool, attention: bool) -> int:
    """Print the problems; return the exit code."""
    try:
        with already_there() as (settings, client):
            found = read_problems(client, settings)
    except RedisUnavailable as error:
        document = {"reachable": False, "reason": error.message, "problems": []}
        print_result(document, error.message, as_json=as_json)
        return UNREACHABLE
    shown = [each for each in found if attention or each.severity == ILL]
    document = {"reachable": True, "problems": [each.document() for each in shown]}
    told = [line for each in shown for line in each.lines] or ["All is well."]
    print_result(document, *told, as_json=as_json)
    return EXIT_ILL if shown else 0


def _watch(client: Redis, settings: Settings) -> None:
    """Draw the status every second, until Ctrl-C, with the growth of its counts in the last ten.

    A Redis that is away for a while does not end the watching.
    """
    from rich.console import Console, Group  # noqa: PLC0415 - `--help` has to be quick
    from rich.live import Live  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    file, looks = WatchedFile(settings), deque[tuple[float, Counts]](maxlen=_LOOKS)
    live = Live(console=Console(), auto_refresh=False, vertical_overflow="crop")
    with suppress(KeyboardInterrupt), live:
        while True:
            try:
                standing = read_newest(client, file)
            except RedisUnavailable as error:
                mention(error.message)
            else:
                looks.append((time.monotonic(), standing.counts))
                # The line below the last one is the cursor's.
                size = live.console.size
                drawn = screen(standing, growth_of(looks), size.height - 1, size.width)
                texts = (
                    Text(printable(line), style=style, no_wrap=True, overflow="ellipsis")
                    for line, style in drawn
                )
                live.update(Group(*texts), refresh=True)
            time.sleep(_EVERY_SECONDS)


def growth_of(looks: Sequence[tuple[float, Counts]]) -> dict[str, float] | None:
    """Return the growth of each kind of count a second; None until there are two looks."""
    (begun, before), (ended, now) = looks[0], looks[-1]
    if ended <= begun:
        return None
    return {kind: round((now.of(kind) - before.of(kind)) / (ended - begun), 1) for kind in KINDS}
