"""`segrelay tap`: what goes through now, as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import orjson
import typer

from segrelay.ops.state.acts import Acts
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import is_digest, person_named, read_former_identities
from segrelay.ops.terminal.console import is_all_written, mention, say, say_wrapped
from segrelay.ops.terminal.moments import parse_seconds
from segrelay.ops.terminal.options import DestinationName, Reveal, configured
from segrelay.worker.contract.printable import json_text, plural
from segrelay.worker.contract.redis.acts import note_act
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.taps import LAPSE_MS, TapLook, TapWatch
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.taps import OUTCOMES, TapFilter, TapKind
from segrelay.worker.errors import RedisUnavailable, UsageWrong

_LONGEST_SECONDS: Final = 3_600.0
_LOOK_SECONDS: Final = 0.25
_COUNT_SECONDS: Final = 1.0
"""The seconds between two lines about what was left out."""
_SHOWN_DIGEST: Final = 8
_INDENT: Final = "    "


@dataclass(frozen=True, slots=True)
class TapOptions:
    """Options that narrow each other; without any of them everything is shown."""

    what: Annotated[str, typer.Option(help=f"Only this: {', '.join(TapKind)}.", metavar="KIND")] = (
        ""
    )
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    destination: DestinationName = ""
    outcome: Annotated[
        str, typer.Option(help=f"Only outcomes of this kind: {', '.join(OUTCOMES)}.")
    ] = ""
    person: Annotated[
        str, typer.Option(help="Only of this person: a value of the identity field, or a digest.")
    ] = ""
    text: Annotated[str, typer.Option(help="Only with this text in what is shown.")] = ""

    def chosen(self, client: Redis, settings: Settings, *, reveal: bool = False) -> TapFilter:
        """Return the filter that these options stand for.

        Raises:
            UsageWrong: There is no such kind, trigger, destination or outcome.
        """
        for option, value, known in (
            ("--what", self.what, list(TapKind)),
            ("--outcome", self.outcome, OUTCOMES),
        ):
            if value and value not in known:
                raise UsageWrong(f"{option} {value}: write one of {', '.join(known)}.")
        if self.trigger:
            configured("trigger", self.trigger, settings.triggers)
        if self.destination:
            configured("destination", self.destination, settings.destinations)
        fields = asdict(self)
        kind, person, text = fields.pop("what"), fields.pop("person"), fields.pop("text")
        people = _digests(client, settings, person) if person else frozenset()
        return TapFilter(kind=kind, people=people, containing=text, reveal=reveal, **fields)


def _digests(client: Redis, settings: Settings, person: str) -> frozenset[bytes]:
    if is_digest(person):
        return frozenset([bytes.fromhex(person)])
    known = person_named(person, settings, learn_numbering(client, settings))
    former = read_former_identities(client, all_partitions(client, settings), known.digest)
    return frozenset(one.digest for one in (known, *former))


def tap(
    *,
    options: TapOptions,
    for_: Annotated[
        str, typer.Option("--for", help="End after this, e.g. 15s or 5m; at most 1h.")
    ] = "1m",
    reveal: Reveal = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each record as a line of JSON.")
    ] = False,
    relay: Acts,
) -> None:
    """Show what goes through now: events, renders, requests, answers and outcomes.

    It ends by itself, or with Ctrl-C. Of much, each process shows a sample: as many records a
    second as do not slow it, and how many more there were. What few filters leave is shown whole.
    A process that drains begins within about three seconds.

    People are digests, and their data is masked. With --reveal it is not; the audit keeps that.
    """
    seconds = parse_seconds(for_, "--for")
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageWrong(f"--for {for_}: write up to 1h, such as 15s or 5m.")
    wanted = options.chosen(relay.client, relay.settings, reveal=reveal)
    if reveal:
        note_act(relay.client, relay.act(reveal="yes", **asdict(options)))
    show = _Shown(as_json=as_json, reveal=reveal)
    watch = TapWatch(relay.client, wanted)
    try:
        with suppress(KeyboardInterrupt):
            _watch(watch, show, seconds)
    finally:
        watch.end()
    show.end()


def _watch(watch: TapWatch, show: _Shown, seconds: float) -> None:
    """Show the records for so long. A Redis that is away for a while does not end it."""
    ends_at = time.monotonic() + seconds
    has_begun = False
    while not show.is_closed:
        is_last = time.monotonic() >= ends_at
        try:
            found = watch.look()
        except RedisUnavailable as error:
            mention(error.message)
        else:
            if found.is_new and has_begun:
                show.tell_gap()
            has_begun = True
            show.show(found)
        if is_last:
            return
        time.sleep(max(0.0, min(_LOOK_SECONDS, ends_at - time.monotonic())))


class _Shown:
    """The output: each record as a line, and how many were left out."""

    def __init__(self, *, as_json: bool, reveal: bool) -> None:
        self._as_json = as_json
        self._reveal = reveal
        self._count = 0
        self._before = 0
        self._left_out = 0
        self._told = 0
        self._tell_at = 0.0
        self.is_closed = False

    def show(self, found: TapLook) -> None:
        """Print what a look has found."""
        if found.is_new:
            self._before = self._left_out
        self._left_out = self._before + found.left_out
        for record in found.records:
            self._print(record)
        self._count += len(found.records)
        if self._left_out > self._told and time.monotonic() >= self._tell_at:
            self._tell_left_out()
        self.is_closed = not is_all_written()

    def tell_gap(self) -> None:
        """Say that something may be missing that nobody has counted."""
        mention(
            f"This was not read for {LAPSE_MS // 1_000} s, and the workers have stopped showing:"
            " what went through meanwhile is missing, and not counted."
        )

    def end(self) -> None:
        """Say how much was shown."""
        if self._left_out > self._told:
            self._tell_left_out()
        if is_all_written():
            mention(f"{plural(self._count, 'record')} shown, {self._left_out:,} left out.")

    def _tell_left_out(self) -> None:
        more = self._left_out - self._told
        self._told, self._tell_at = self._left_out, time.monotonic() + _COUNT_SECONDS
        if self._as_json:
            self._print({"kind": "left_out", "count": more})
        else:
            say(f"… {more:,} more, left out")

    def _print(self, record: Mapping[str, Any]) -> None:
        if self._as_json:
            sys.stdout.write(json_text(orjson.dumps(record)) + "\n")
            return
        say_wrapped("  ".join(_parts(record)))
        if self._reveal and record.get("content") is not None:
            say_wrapped(_INDENT + orjson.dumps(record["content"]).decode())


def _parts(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a line, the fixed ones first."""
    yield record["time"][11:23]
    yield f"{record['kind']:<7}"
    yield f"{record['direction']} {record['audience']} for {record['trigger']}"
    if "deliveries" not in record:
        yield record["person"][:_SHOWN_DIGEST]
    yield from detail_of(record)


def detail_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a line that depend on the kind of the record."""
    if "deliveries" in record:
        yield plural(record["deliveries"], "delivery", "deliveries")
    match record["kind"]:
        case TapKind.EVENT:
            yield f"lane {record['lane']}"
        case TapKind.RENDER:
            yield f"{record['template']}, {record['bytes']:,} bytes"
        case TapKind.REQUEST:
            yield f"{record['method']} {record['url']}"
        case TapKind.ANSWER:
            yield f"{record['status'] or 'none'} {record['verdict']}"
            yield f"{record['elapsed_seconds']:.2f} s"
        case _:
            parts = (record["outcome"], record["reason"], record["status"])
            yield " ".join(str(part) for part in parts if part)
    if record.get("message"):
        yield record["message"]
