"""`segrelay status`: the state of the relay, once or live.

The text of `segrelay status`: lines and tables, with problems in red.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, NamedTuple

import orjson
import typer

from segrelay.ops.state.opened import already_there, opened
from segrelay.ops.status.capacity import capacity_lines, read_capacity
from segrelay.ops.status.health import read_judged
from segrelay.ops.status.problems import ILL, counted, line_of, reason_of
from segrelay.ops.status.screen import StatusScreen
from segrelay.ops.status.totals import KINDS, LOOKS, ProgressMeter
from segrelay.ops.terminal.console import mention, print_json, print_result, say, say_wrapped, table
from segrelay.ops.terminal.options import Json
from segrelay.ops.terminal.tables import TableColumns, count_columns, number_columns, text_columns
from segrelay.worker.contract.patience import READY_SECONDS
from segrelay.worker.contract.printable import json_text
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.settings.sandboxed import SANDBOX_VARIABLE, sandbox_url
from segrelay.worker.errors import (
    ConfigurationInvalid,
    OperationsMustAct,
    RedisUnavailable,
    UsageWrong,
)

_EXPLAINED: Final = frozenset({"paused", "stopped", "refused", "waits", "failed", "interrupted"})
"""States that are shown with their reason."""


class StatusTable(NamedTuple):
    """A table of the status: its columns, its rows by subject, and the ill subjects, drawn red."""

    columns: TableColumns
    rows: Mapping[str, Sequence[str]]
    ill: Container[str]


def tell(document: Mapping[str, Any]) -> None:
    """Print the status: fitted to a terminal, plain text elsewhere."""
    for line in lines(document):
        say_wrapped(line)
    for line in problems(document):
        say_wrapped(line, is_ill=True)
    for section in sections(document):
        say("")
        ill = {number for number, name in enumerate(section.rows) if name in section.ill}
        table(section.columns, [(name, *cells) for name, cells in section.rows.items()], ill)


def sum_of(document: Mapping[str, Any], rates: Mapping[str, float] | None = None) -> str:
    """Return the six counts as a sum, with their growth."""
    accepted, *others = (f"{kind} {document[kind]:,}" for kind in KINDS)
    told = f"{accepted} = {' + '.join(others)}"
    if rates is None:
        return told
    grown = (f"{kind} {rates[kind]:,.0f}" for kind in ("accepted", "delivered"))
    return f"{told}; a second: {', '.join(grown)}"


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return the problems, the ill ones first."""
    return [line_of(each) for each in document["problems"]]


def _ill(document: Mapping[str, Any], *kinds: str) -> frozenset[str]:
    """Return the subjects of problems of these kinds, which are drawn red."""
    return frozenset(p["subject"] for p in document["problems"] if p["name"].startswith(kinds))


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the status above its tables."""
    yield sum_of(document)
    for kind in ("skipped", "dead"):
        if document[f"{kind}_by_reason"]:
            yield f"{kind}: {counted(document[f'{kind}_by_reason'])}"
    oldest = document["oldest_waiting_seconds"]
    if oldest is not None:
        yield f"the oldest waits for {oldest:,.0f} s"
    yield (
        f"requests {document['requests']:,}, unanswered {document['unanswered']:,}, "
        f"deliveries sent again {document['resent']:,}, open notes {document['open_notes']:,}"
    )
    if document["quarantined"]:
        yield f"quarantined {document['quarantined']:,}: `segrelay quarantine list`"
    if document["too_large_requests"]:
        yield (
            f"requests refused as too large {document['too_large_requests']:,}: Lytics dropped "
            "their events; make its batches smaller, or raise producer.webhook.max_bytes"
        )
    yield from _changing_partitions(document["partitions"])
    for name, people in document["renamed_people"].items():
        yield (
            f"people of {name} renamed by themselves {people['renamed']:,}, waiting"
            f" {people['waiting']:,}, refused {people['refused']:,}"
        )
    if document["dropped_fields"]:
        yield f"fields left out: {counted(document['dropped_fields'])}"


def _changing_partitions(changing: Mapping[str, Any]) -> Iterator[str]:
    if "changing_to" in changing:
        target = changing["changing_to"]
        yield (
            f"partitions {changing['count']:,}, being changed to {target:,}: nothing is accepted or"
            f" delivered before `segrelay redis partitions {target}` has ended"
        )


def sections(document: Mapping[str, Any]) -> Iterator[StatusTable]:
    """Yield the tables of destinations, triggers, jobs and processes."""
    yield _destinations(document)
    yield _triggers(document)
    if document["jobs"]:
        yield _jobs(document)
    if document["processes"]:
        yield _processes(document)


def _destinations(document: Mapping[str, Any]) -> StatusTable:
    rows = {
        name: (d["state"], f"{d['rate']:,.0f}", f"{d['factor']:.0%}", reason_of(d))
        for name, d in document["destinations"].items()
    }
    columns = (*number_columns("rate/min", "factor"), *text_columns("reason"))
    return StatusTable(("destination", "state", *columns), rows, _ill(document, "destination_"))


def _triggers(document: Mapping[str, Any]) -> StatusTable:
    found = document["triggers"].items()
    rows = {name: (_state(t), *_six(t), _template(t)) for name, t in found}
    ill = _ill(document, "trigger_", "template_", "live_", "dead_")
    ill |= {name for name, t in found if t["state"] == "orphaned"}
    columns = (*text_columns("state"), *count_columns(*KINDS), *text_columns("template"))
    return StatusTable(("trigger", *columns), rows, ill)


def _jobs(document: Mapping[str, Any]) -> StatusTable:
    rows = {name: (_state(job), *_six(job)) for name, job in document["jobs"].items()}
    columns = (*text_columns("state"), *count_columns(*KINDS))
    return StatusTable(("job", *columns), rows, _ill(document, "job_"))


def _processes(document: Mapping[str, Any]) -> StatusTable:
    found = {f"{p['host']}:{p['pid']}": p for p in document["processes"]}
    rows = {name: (p["version"] or "-", _config(p)) for name, p in found.items()}
    ill = {
        name
        for name, p in found.items()
        if not p["current"] or p["doubted"] or p["refused_messages"]
    }
    return StatusTable(("worker", "version", *text_columns("configuration")), rows, ill)


def _six(counts: Mapping[str, Any]) -> Iterator[str]:
    return (f"{counts[kind]:,}" for kind in KINDS)


def _config(process: Mapping[str, Any]) -> str:
    text = f"{process['config']}{'' if process['current'] else ' (another than this)'}"
    for name, count in process["doubted"].items():
        text += f"; the compiled form of {name} is off (it differed from Jsonnet {count:,} times)"
    if process["refused_messages"]:
        text += f"; {process['refused_messages']:,} messages of the broker were refused"
    return text


def _template(trigger: Mapping[str, Any]) -> str:
    """Describe a trigger's template: its version, other versions, canary, and refused changes."""
    text = trigger["version"] or "-"
    for worker, versions in trigger["other_versions"].items():
        text += f"; {worker} still has {', '.join(versions)}"
    use = trigger["engine_use"]
    if use["asked"]:
        share = f"{100 * use['asked'] / use['events']:.0f} % of the last {use['events']:,} events"
        text += f"; {share} needed the Jsonnet engine, mostly for {next(iter(use['by_reason']))}"
    canary = trigger["canary"]
    if canary and canary["left"]:
        gone = canary["of"] - canary["left"]
        text += f"; its canary goes: {gone:,} of {canary['of']:,}"
    if trigger["refused"]:
        text += f"; the file was changed and is broken, so this one is kept: {trigger['refused']}"
    return text


def _state(trigger: Mapping[str, Any]) -> str:
    reason = reason_of(trigger)
    if reason and trigger["state"] in _EXPLAINED:
        return f"{trigger['state']}: {reason}"
    return str(trigger["state"])


EXIT_ILL: Final = 1
UNREACHABLE: Final = 3
"""Exit code of `status --check` without Redis; `EXIT_ILL` means that there are problems."""

_EVERY_SECONDS: Final = 1.0

Read = Callable[[], dict[str, Any]]


def status(
    *,
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Show it again and again, until Ctrl-C; as JSON, a line each."
        ),
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
    capacity: Annotated[
        bool,
        typer.Option(
            "--capacity",
            help="Reckon how long the backlog takes, and the memory that more people need.",
        ),
    ] = False,
) -> None:
    """Show how everything stands: accepted = delivered + skipped + dead + discarded + waiting.

    Problems stand on top: each with its name, its cause, and the command that shows or mends it.
    The exit code of --check is 0 if all is well, 1 if something is ill (customers notice it, or
    will soon), 3 if Redis can't be reached. It starts nothing.
    """
    if notify_test and (check or watch):
        alone = "--check" if check else "--watch"
        raise UsageWrong(f"--notify-test sends one message and ends; leave out {alone}.")
    if check and watch:
        raise UsageWrong("--check looks once; leave out --watch.")
    if attention and not check:
        raise UsageWrong("--attention belongs to --check.")
    if notify_test:
        _test_messages(as_json=as_json)
        return
    if capacity and (check or watch):
        raise UsageWrong("--capacity looks once; leave out --check and --watch.")
    if check:
        raise typer.Exit(_checked(as_json=as_json, attention=attention))
    with opened(ready_seconds=READY_SECONDS, patient=False) as (settings, client):

        def read() -> dict[str, Any]:
            return read_judged(client, settings)

        if capacity:
            _tell_capacity(read_capacity(client, settings, read()), as_json=as_json)
        elif watch:
            _watch(read, as_json=as_json)
        elif as_json:
            print_json(read())
        else:
            tell(read())


def _test_messages(*, as_json: bool) -> None:
    """Send a test message to operate.notify.url."""
    from segrelay.ops.status.alerts import TEST, post  # noqa: PLC0415 - needs an HTTP client

    settings = load_settings()
    notify = settings.operate.notify
    if sandbox_url(os.environ):
        raise ConfigurationInvalid(
            f"A rehearsal sends no messages; unset {SANDBOX_VARIABLE} to try operate.notify.url."
        )
    if notify is None:
        raise ConfigurationInvalid(
            f'{settings.source.name} has no [operate.notify]; add it, with url = "env:NAME".'
        )
    failure = post(TEST, notify).failure
    if as_json:
        print_json({"sent": not failure, "reason": failure})
    if failure:
        raise OperationsMustAct(
            f"The address of operate.notify.url ({notify.url.origin}) took no message: {failure}."
            " See whether the URL is right, and can be reached from this machine."
        )
    if not as_json:
        say("The test message was taken.")


def _tell_capacity(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for line in capacity_lines(found):
        say_wrapped(line)


def _checked(*, as_json: bool, attention: bool) -> int:
    """Print the problems; return the exit code."""
    try:
        with already_there() as (settings, client):
            found = read_judged(client, settings)["problems"]
    except RedisUnavailable as error:
        document = {"reachable": False, "reason": error.message, "problems": []}
        print_result(document, error.message, as_json=as_json)
        return UNREACHABLE
    problems = [each for each in found if attention or each["severity"] == ILL]
    lines = [line_of(each) for each in problems] or ["All is well."]
    print_result({"reachable": True, "problems": problems}, *lines, as_json=as_json)
    return EXIT_ILL if problems else 0


def _watch(read: Read, *, as_json: bool) -> None:
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _draw_again(read)
        else:
            _tell_again(read, as_json=as_json)


def _tell_again(read: Read, *, as_json: bool) -> None:
    for document, pace in _readings(read, looks=2):
        rates = pace.rates()
        if as_json:
            line = json_text(orjson.dumps({**document, "per_second": rates}))
            sys.stdout.write(line + "\n")
        else:
            say(sum_of(document, rates))
        sys.stdout.flush()


def _draw_again(read: Read) -> None:
    from rich.console import Console, Group  # noqa: PLC0415 - `--help` has to be quick
    from rich.live import Live  # noqa: PLC0415 - see above

    with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
        for document, pace in _readings(read, looks=LOOKS):
            # The line below the last one is the cursor's.
            screen = StatusScreen(document, pace, live.console.height - 1)
            live.update(Group(*screen.drawn()), refresh=True)


def _readings(read: Read, looks: int) -> Iterator[tuple[dict[str, Any], ProgressMeter]]:
    """Yield the status every second, with the pace of its counts over the last looks.

    A Redis that is away for a while does not end the watching.
    """
    meter = ProgressMeter(looks)
    while True:
        try:
            document = read()
        except RedisUnavailable as error:
            mention(error.message)
        else:
            meter.look(document, time.monotonic())
            yield document, meter
        time.sleep(_EVERY_SECONDS)
