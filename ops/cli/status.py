"""`segrelay status`: how everything stands, once or all the time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import orjson
import typer

from ops.cli.console import note, print_json, say, table
from ops.cli.opened import opened
from ops.state.status import KINDS, read_status
from worker.contract.printable import json_text, printable
from worker.errors import RedisUnavailable

if TYPE_CHECKING:
    from rich.console import Group

_EVERY_SECONDS: Final = 1.0

Read = Callable[[], dict[str, Any]]


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, until Ctrl-C; as JSON, a line each.")
    ] = False,
) -> None:
    """Show how everything stands: accepted = delivered + skipped + dead + discarded + waiting."""
    with opened() as (settings, client):

        def read() -> dict[str, Any]:
            return read_status(client, settings)

        if watch:
            _watch(read, as_json=as_json)
        elif as_json:
            print_json(read())
        else:
            _tell(read())


def _watch(read: Read, *, as_json: bool) -> None:
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _draw_again(read)
        else:
            _tell_again(read, as_json=as_json)


def _tell_again(read: Read, *, as_json: bool) -> None:
    while True:
        document = _read_or_none(read)
        if document is not None and as_json:
            sys.stdout.write(json_text(orjson.dumps(document)) + "\n")
        elif document is not None:
            say(_sum(document))
        sys.stdout.flush()
        time.sleep(_EVERY_SECONDS)


def _read_or_none(read: Read) -> dict[str, Any] | None:
    """Return the status; a Redis that is away for a while does not end the watching."""
    try:
        return read()
    except RedisUnavailable as error:
        note(error.message)
        return None


def _draw_again(read: Read) -> None:
    from rich.console import Console  # noqa: PLC0415 - `--help` has to be quick
    from rich.live import Live  # noqa: PLC0415 - see above

    console = Console()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            document = _read_or_none(read)
            if document is not None:
                live.update(_drawn(document), refresh=True)
            time.sleep(_EVERY_SECONDS)


class _Section(NamedTuple):
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def _tell(document: Mapping[str, Any]) -> None:
    for line in _lines(document):
        say(line)
    for section in _sections(document):
        say("")
        table(section.columns, section.rows)


def _drawn(document: Mapping[str, Any]) -> Group:
    from rich import box  # noqa: PLC0415 - `--help` has to be quick
    from rich.console import Group  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    parts: list[Any] = [Text(printable(line)) for line in _lines(document)]
    for section in _sections(document):
        drawn = Table(*section.columns, box=box.SIMPLE)
        for row in section.rows:
            drawn.add_row(*map(Text, row))
        parts.append(drawn)
    return Group(*parts)


def _sum(document: Mapping[str, Any]) -> str:
    accepted, *others = (f"{kind} {document[kind]:,}" for kind in KINDS)
    return f"{accepted} = {' + '.join(others)}"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield _sum(document)
    for kind in ("skipped", "dead"):
        if document[f"{kind}_by_reason"]:
            yield f"{kind}: {_counted(document[f'{kind}_by_reason'])}"
    oldest = document["oldest_waiting_seconds"]
    if oldest is not None:
        yield f"the oldest waits for {oldest:,.0f} s"
    yield (
        f"requests {document['requests']:,}, unanswered {document['unanswered']:,}, "
        f"deliveries sent again {document['resent']:,}, open notes {document['open_notes']:,}"
    )
    if document["quarantined"]:
        yield f"quarantined {document['quarantined']:,}: `segrelay quarantine list`"
    if document["orphaned"]:
        yield (
            f"orphaned {document['orphaned']:,} ({_counted(document['orphans'])}): "
            "`segrelay trigger move`, or `segrelay discard --trigger`"
        )
    yield from _about_processes(document)
    if document["dropped_fields"]:
        yield f"fields left out: {_counted(document['dropped_fields'])}"


def _about_processes(document: Mapping[str, Any]) -> Iterator[str]:
    processes = document["processes"]
    if not processes and document["waiting"]:
        yield "no worker has been seen for 10 s: `segrelay up`, or `segrelay worker`"
    older = [f"{one['host']}:{one['pid']}" for one in processes if not one["current"]]
    if older:
        yield f"started with another configuration than this: {', '.join(older)}; restart them"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _sections(document: Mapping[str, Any]) -> Iterator[_Section]:
    yield _Section(
        ("destination", "state", "rate/min", "factor", "reason"),
        [
            (name, d["state"], f"{d['rate']:,.0f}", f"{d['factor']:.0%}", _reason(d))
            for name, d in document["destinations"].items()
        ],
    )
    yield _Section(
        ("trigger", *KINDS, "state"),
        [
            (name, *(f"{t[kind]:,}" for kind in KINDS), _state(t))
            for name, t in document["triggers"].items()
        ],
    )
    if document["jobs"]:
        yield _Section(
            ("job", *KINDS),
            [
                (name, *(f"{job[kind]:,}" for kind in KINDS))
                for name, job in document["jobs"].items()
            ],
        )


def _reason(destination: Mapping[str, Any]) -> str:
    return str(destination.get("message") or destination["reason"])


def _state(trigger: Mapping[str, Any]) -> str:
    if trigger["reason"] and trigger["state"] in {"paused", "stopped"}:
        return f"{trigger['state']}: {trigger['reason']}"
    return str(trigger["state"])
