"""`segrelay backfill plan`: what a backfill would do, before it does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson
from redis import Redis

from ops.backfill.job_request import RowOptions, spec_of
from ops.backfill.planning import JobPlan, Planner
from ops.state.opened import opened
from ops.terminal.console import mention, print_result, progress, say, table
from ops.terminal.options import Json, spread
from ops.terminal.tables import number_columns, text_columns
from worker.contract.settings import Settings
from worker.contract.words import Refusal

_BAD_ROWS_SHOWN: Final = 10
_MEGABYTE: Final = 1_000_000
_MINUTE: Final = 60


@spread
def plan(options: RowOptions, *, as_json: Json = False) -> None:
    """Read the rows and say what a backfill would do; nothing is written and nothing is sent.

    It counts rows, events and bad rows, asks the ledger what is known already, renders a few rows
    of each trigger, and reckons requests, duration at the allowed rate, and Redis' memory.
    """
    with opened() as (settings, client):
        found = _planned(options, settings, client)
    print_result(found.document(), *_lines(found), as_json=as_json)
    if as_json:
        return
    _tell_triggers(found)
    for name, one in sorted(found.triggers.items()):
        for problem, count in one.problems.items():
            mention(f"{name}: {count:,} of {len(one.sample):,} would be dead: {problem}")
    for body in found.bodies:
        say(f"\nwould be sent for {body['trigger']}, masked:")
        say(orjson.dumps(body["body"], option=orjson.OPT_INDENT_2).decode())


def _planned(options: RowOptions, settings: Settings, client: Redis) -> JobPlan:
    spec = spec_of(options, settings, client)
    result = JobPlan(spec)
    shown = 0
    with progress("read, in bytes" if spec.size else "read, in rows", spec.size or None) as bar:
        for result, read_bytes in Planner(client, settings).plan(spec):
            done = read_bytes if spec.size else result.rows
            bar.advance(done - shown)
            shown = done
    return result


def _lines(plan: JobPlan) -> Iterator[str]:
    found = plan.document()
    if found["audience"]:
        yield f"{found['on']} of {found['audience']} as of {found['as_of']}"
    yield (
        f"{plan.rows:,} rows: {plan.events:,} events, {plan.unmatched:,} unmatched, "
        f"{plan.refused:,} refused"
    )
    for reason, count in found["refused_by_reason"].items():
        yield f"  refused {reason}: {count:,}"
        if reason == Refusal.OLDER_THAN_LEDGER:
            yield "    who left after that may be forgotten; --older-than-ledger accepts them"
    for bad in plan.bad_rows[:_BAD_ROWS_SHOWN]:
        yield f"  {bad.file}:{bad.line}: {bad.reason}: {bad.message}"
    if plan.refused > _BAD_ROWS_SHOWN:
        yield "  …; --json tells up to 1,000"
    yield (
        f"{found['deliveries']:,} deliveries, {found['known']:,} of them known to the ledger; "
        f"about {found['requests']:,} requests, {_duration(plan.seconds)} at the allowed rate"
    )
    free = ""
    if plan.free_bytes is not None:
        free = f"; producers may still use {plan.free_bytes / _MEGABYTE:,.0f} MB of it"
    yield f"Redis needs up to {plan.redis_bytes / _MEGABYTE:,.0f} MB{free}"
    journeys = "starts no journeys" if plan.spec.skip_hook else "may start journeys"
    yield f"Insider {journeys} for these people"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:,.0f} s"
    return f"{seconds / _MINUTE:,.0f} min"


def _tell_triggers(plan: JobPlan) -> None:
    rows = []
    for name, one in sorted(plan.triggers.items()):
        found = one.document()
        sample = ", ".join(f"{what} {count}" for what, count in found["sample"].items())
        rows.append(
            (
                name,
                one.deliveries,
                ", ".join(f"{why} {count:,}" for why, count in found["known"].items()) or "-",
                one.left,
                one.requests,
                sample,
            )
        )
    table(
        (
            "trigger",
            *number_columns("deliveries"),
            *text_columns("known"),
            *number_columns("to send", "requests"),
            *text_columns("of 100 rendered"),
        ),
        rows,
    )
