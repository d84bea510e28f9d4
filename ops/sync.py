"""`segrelay sync`: see, run, confirm and reset the syncs of audiences."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Final

import structlog
import typer

from segrelay.ops.state.opened import Acts, Asks, Doing, Reads, perform
from segrelay.ops.state.waiting import times
from segrelay.ops.terminal.console import mention
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import awaited, shown_ms, shown_us
from segrelay.ops.terminal.options import AtMost, DryRun
from segrelay.ops.terminal.serving import interrupted_once
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import profile_key
from segrelay.producer.lytics import begun_us
from segrelay.producer.publish import Publisher
from segrelay.producer.sync.comparing import LedgerComparison
from segrelay.producer.sync.step import Syncing, confirm, syncing_for
from segrelay.producer.sync.store import CERTAIN, Mark, Phase, Run, SyncStore
from segrelay.worker.contract.ledger import LastDelivered
from segrelay.worker.contract.printable import did_you_mean, plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.values import format_duration
from segrelay.worker.contract.words import NAME_PATTERN, Direction
from segrelay.worker.errors import OperationsMustAct, PayloadRefused, UsageWrong

app = typer.Typer(help="Compare audiences with Lytics again and again.")

_LOOK_SECONDS: Final = 0.2
_PEOPLE_A_CALL: Final = 1_000
_LOCK_SECONDS: Final = 30.0
"""Seconds to wait for a sync's lock; a step of a worker has ended by then."""

_SILENT: Final = structlog.wrap_logger(
    None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
)
"""A logger that prints nothing: the terminal shows a line for each step already."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a table [sync.NAME].")]
MaybeName = Annotated[
    str, typer.Argument(metavar="[NAME]", help="The name of a table [sync.NAME].")
]


@app.command()
def status(name: MaybeName = "", *, relay: Reads) -> Result:
    """List the syncs; with a name, show how far it has come and what its last run found."""
    client, settings = relay.client, relay.settings
    if name:
        row = _document(settings, client, _known(settings, name))
        return Result(row, *_lines(row))
    rows = [_document(settings, client, each) for each in settings.sync]
    columns: TableColumns = (
        "audience",
        "source",
        "every",
        *number_columns("members"),
        *text_columns("state"),
    )
    cells = [
        (row["name"], row["audience"], row["source"], row["every"], row["members"], row["line"])
        for row in rows
    ]
    return Result(rows, Table(("name", *columns), cells))


@app.command()
def run(name: Name, *, dry_run: DryRun = False, relay: Acts) -> Result:
    """Do a run now, in this terminal, to its end.

    It compares with the ledger, too: "repaired" counts people whose webhook got lost. If a run is
    under way, it is taken up where it stands; workers may do some of its steps. Exits
    with 1 if the run could not tell who has left: the message says why. With --dry-run it counts
    the entrances and exits by which the ledger differs from the source now, and exits with 1 if
    there are any.
    """
    client, settings = relay.client, relay.settings
    with interrupted_once():
        _known(settings, name)
        syncing = syncing_for(client, settings, name, Publisher(client, settings))
        if dry_run:
            return _differences(syncing)
        syncing = replace(syncing, log=_SILENT)
        result = perform(client, relay.act(name), lambda _: _run(syncing), is_counted=False)
        row = _document(settings, client, name)
    is_certain = result.phase is not Phase.CONFIRM and result.last.get("outcome") in CERTAIN
    return Result(row, *_lines(row), exit_code=0 if is_certain else 1)


@app.command("confirm")
def confirm_exits(
    name: Name,
    *,
    number: Annotated[
        int | None,
        typer.Option("--run", help="Do nothing if another run waits than this.", metavar="N"),
    ] = None,
    at_most: AtMost = None,
    relay: Acts,
) -> Result:
    """Confirm that the missing members have really left, so that their exits are published.

    Each of them is looked up once more: who is still in the audience stays. The run and the number
    of missing members stand in `sync status NAME`.
    """
    _known(relay.settings, name)
    store = SyncStore(relay.client, name, relay.settings.redis)

    def follow(doing: Doing) -> int:
        with _locked(store) as found:
            doing.count = confirm(store, found, number=number, at_most=at_most)
        return doing.count

    gone = perform(relay.client, relay.act(name, run=number, at_most=at_most), follow)
    exits = plural(gone, "exit")
    told = f"Up to {exits} of sync '{name}' will be published; a worker goes on with it."
    return Result({"name": name, "confirmed": gone}, told)


@app.command()
def reset(name: Name, *, relay: Asks) -> Result:
    """Forget the members of a sync: its next run is a first one, and reports every member again.

    Nothing is published by it. What the ledger knows to be at the destination is not sent again.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UsageWrong(f"A sync's name has only a to z, 0 to 9 and -; '{name}' has others.")
    settings = relay.settings
    store = SyncStore(relay.client, name, settings.redis)
    destinations = list(dict.fromkeys([*settings.destinations, *store.peek().destinations]))
    members = max((store.count(each) for each in destinations), default=0)
    if not members:
        _known(settings, name)
    relay.confirm(f"Forget the {plural(members, 'member')} that sync '{name}' knows?")

    def forget(doing: Doing) -> None:
        with _locked(store):
            store.forget(destinations)
        doing.count = members

    perform(relay.client, relay.act(name), forget)
    document = {"name": name, "forgotten": members}
    return Result(document, f"Forgotten: {plural(members, 'member')}.")


def _differences(syncing: Syncing) -> Result:
    """Count the people of whom the ledger differs from the source, by destination."""
    store, publisher, audience = syncing.store, syncing.publisher, syncing.find_audience()
    keys, at_us, following = set[str](), 0, None
    with syncing.open_source(time.sleep) as source:
        while following != "":
            page = source.page(following or "", lambda: None)
            at_us = at_us or begun_us(page, 1_000 * store.now_ms())
            for row in page.rows:
                with suppress(PayloadRefused):
                    keys.add(profile_key(row, syncing.identity))
            following = page.following
    wanted = {
        trigger.destination
        for direction in (Direction.ENTER, Direction.EXIT)
        for trigger in publisher.triggers_for(audience, direction)
    }
    rows = []
    for destination in sorted(wanted):
        ledger = LedgerComparison.of(publisher, destination, audience, at_us)
        members = {
            key
            for partition in store.partitions([destination])
            for key, mark in store.members(partition)
            if not Mark.loads(mark).is_name
        }
        delivered: dict[str, LastDelivered] = {}
        remaining = iter(keys | members)
        while part := list(islice(remaining, _PEOPLE_A_CALL)):
            delivered |= store.last_delivered(destination, audience, part)
        # A member of whom the ledger knows nothing was told of: that event waits, or has ended.
        entering = sum(
            ledger.is_missing(delivered.get(key)) and (key in delivered or key not in members)
            for key in keys
        )
        leaving = sum(ledger.is_stale(delivered.get(key)) for key in members - keys)
        rows.append({"destination": destination, "entrances": entering, "exits": leaving})
    people = plural(len(keys), "person", "people")
    return Result(
        {"audience": audience, "source": len(keys), "destinations": rows},
        f"{people} in the source of '{audience}'; a run publishes:",
        Table(
            ("destination", *number_columns("entrances", "exits")),
            [tuple(row.values()) for row in rows],
        ),
        exit_code=int(any(row["entrances"] or row["exits"] for row in rows)),
    )


def _run(syncing: Syncing) -> Run:
    forced = True
    told = ""
    while True:
        step = syncing.step(forced=forced)
        if step.line != told and (step.more or step.wait_seconds or not step.taken):
            mention(f"{syncing.store.name}: {step.line}")
            told = step.line
        if step.taken:
            forced = False
            if not (step.more or step.wait_seconds):
                return syncing.store.peek()
        time.sleep(step.wait_seconds if step.taken else _LOOK_SECONDS)


@contextmanager
def _locked(store: SyncStore) -> Iterator[Run]:
    """Hold the lock of a sync; a step in progress is waited for."""
    taken = awaited(store.take, _LOCK_SECONDS, _LOOK_SECONDS)
    if not taken:
        raise OperationsMustAct(
            f"A step of sync '{store.name}' has been under way for long; try again."
        )
    try:
        yield taken[0]
    except UsageWrong:
        store.save(taken[0], ends=True)
        raise


def _known(settings: Settings, name: str) -> str:
    if name not in settings.sync:
        hint = did_you_mean(name, settings.sync) or "the configuration names none"
        raise UsageWrong(f"There is no [sync.{name}]: {hint}.")
    return name


def _document(settings: Settings, client: Redis, name: str) -> dict[str, Any]:
    schedule = settings.sync[name]
    store = SyncStore(client, name, settings.redis)
    state = store.peek()
    return {
        "name": name,
        "audience": schedule.audience,
        "source": schedule.source,
        "every": format_duration(schedule.every_seconds),
        "phase": state.phase.value,
        "line": state.line() if state.number else "has never run",
        "members": state.members,
        "next_run": shown_ms(state.next_ms) if state.next_ms else None,
        "doubt": state.doubt or None,
        "problem": state.problem or None,
        "failures": state.failures,
        "run": state.results() if state.number else None,
        "last": state.last or None,
    }


def _lines(row: dict[str, Any]) -> Iterator[str]:
    yield f"{row['name']}: {row['line']}"
    yield f"  audience '{row['audience']}' from {row['source']}, every {row['every']}"
    yield f"  known: {plural(row['members'], 'member')}"
    last = row["last"]
    if last:
        kinds = ("rows", "entered", "changed", "left", "stayed", "repaired")
        counts = "".join(f", {last[kind]:,} {kind}" for kind in kinds if last.get(kind))
        yield f"  last run: {last['outcome']}, scan of {shown_us(last['at_us'])}{counts}"
        if last["restarts"]:
            yield (
                f"  the scan began anew {times(last['restarts'])}: its file was written to, or its"
                " pages were no longer known"
            )
        if last["unplaced"]:
            yield (
                f"  without identity: {plural(last['unplaced'], 'row')}: `segrelay quarantine list`"
            )
    if row["next_run"]:
        yield f"  next run: {row['next_run']}"
    if row["problem"]:
        yield f"  problem: {row['problem']}"
