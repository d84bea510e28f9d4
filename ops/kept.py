"""Things kept until a person deals with them: dead letters, quarantined records, what waits.

Each of the three is a `Kept`, and its commands are thin over what stands here: the options that
choose, the masking, the dry run, the question, the progress, the act in the audit, the output.
`segrelay discard`, which takes back what waits, and `segrelay quarantine` stand here too.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import groupby, islice
from typing import Annotated, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import orjson
import typer

from segrelay.ops.state.opened import Acts, Asks, Reads, perform
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.waiting import Filter, count_chosen, find_streams, measure, take_back
from segrelay.ops.terminal.console import fields_of, mention
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms
from segrelay.ops.terminal.options import (
    All,
    AtMost,
    DestinationName,
    DryRun,
    FilterOptions,
    Force,
    Ids,
    Reveal,
)
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import Refused
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.printable import MASK, masked_payload, plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import UsageWrong

MESSAGE_CHARACTERS: Final = 80
"""Characters of a message that a row of a table shows."""


@dataclass(frozen=True, slots=True)
class KeptOptions(FilterOptions):
    """The options by which commands choose quarantined records, and dead letters by some more."""

    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    reason: Annotated[
        str, typer.Option(help="Only with this reason of being here.", metavar="REASON")
    ] = ""
    since: Annotated[
        str,
        typer.Option(
            help="Only what died, or last came, since 2026-11-24T10:00:00Z, or 2h for two hours"
            " ago."
        ),
    ] = ""
    until: Annotated[str, typer.Option(help="Only before; written like --since.")] = ""
    reasons: ClassVar[type[StrEnum]] = Refusal

    def chosen(
        self,
        client: Redis,
        _settings: Settings,
        ids: Iterable[str] | None = None,
        *,
        force: bool = False,
    ) -> Filter:
        """Return the filter that these options stand for.

        Args:
            client: The client of Redis, whose clock counts.
            ids: The ids that the person has named.
            force: True if a replay takes also what is older than the ledger remembers.
        """
        known = sorted(reason.value for reason in self.reasons)
        if self.reason and self.reason not in known:
            raise UsageWrong(f"There is no reason '{self.reason}': {', '.join(known)}.")
        now = now_ms(client)
        return Filter(
            ids=frozenset(ids or ()),
            audience=self.audience,
            reason=self.reason,
            since_ms=parse_moment_ms(self.since, "--since", now_ms=now),
            until_ms=parse_moment_ms(self.until, "--until", now_ms=now),
            older_than_ledger=force,
        )


@dataclass(frozen=True, slots=True)
class ExtentOptions:
    """The options of a command that discards or replays, apart from those that choose."""

    dry_run: DryRun = False
    everything: All = False
    at_most: AtMost = None


class Fate(NamedTuple):
    """The outcome that a replay would have for one thing, without profile fields."""

    id: str
    fate: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """The work of replaying or discarding what was chosen, before anybody has agreed to it.

    Args:
        count: The number of things that it takes, as far as is known.
        steps: A function that does the work, and yields how many things each step took. Where Redis
            was away, it is called again, and goes on with what is left.
        left_out: The number of things that stay, by reason; where only the steps can tell, it is
            whole once they are done.
        preview: A function that says what would become of each thing.
    """

    count: int
    steps: Callable[[], Iterable[int]]
    left_out: Counter[str] = field(default_factory=Counter)
    preview: Callable[[], Iterable[Fate]] = tuple


Item = TypeVar("Item")


@dataclass
class Kept(Generic[Item]):
    """A store of things that wait for a person, who looks at them one by one, or discards them.

    Attributes:
        command: The command that deals with them.
        nouns: The word for one of them, and for several.
        verb: The word for a thing that was replayed.
        fates: The words for what can become of a thing that is replayed, for a dry run.
        why_left_out: The reasons why things stay in words, where their name does not say it.
        accepted: The number of deliveries that its replays made.
    """

    client: Redis
    settings: Settings
    accepted: int = field(default=0, init=False)
    command: ClassVar[str]
    nouns: ClassVar[tuple[str, str]]
    verb: ClassVar[str]
    fates: ClassVar[tuple[str, ...]]
    why_left_out: ClassVar[Mapping[str, str]]

    def find(self, wanted: Filter) -> Iterator[Item]:
        """Yield the things that match; what comes meanwhile may be missing."""
        raise NotImplementedError

    def document(self, one: Item, *, reveal: bool) -> dict[str, Any]:
        """Return all that is known of one thing, masked unless revealed."""
        raise NotImplementedError

    def lines(self, document: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines of a document for people."""
        return fields_of(document)

    def replay(self, wanted: Filter) -> Work:
        """Return the work of giving the matching things to the workers again."""
        raise NotImplementedError

    def result(self, work: Work, done: int) -> Result:
        """Return the result of a replay as its command prints it."""
        raise NotImplementedError

    def discard(self, wanted: Filter) -> Work:
        """Return the work of removing the matching things for good."""
        raise NotImplementedError


def show_one(store: Kept[Item], one_id: str, *, reveal: bool) -> Result:
    """Return one thing with all that is known.

    Raises:
        UsageWrong: There is none with this id.
    """
    refuse_unknown(store, [one_id])
    found = next(store.find(Filter.of_id(one_id)))
    document = store.document(found, reveal=reveal)
    return Result(document, *store.lines(document))


def refuse_unknown(store: Kept[Item], ids: Iterable[str] | None) -> None:
    """Refuse ids of which none is there; where some are, name the others.

    A command that was interrupted may be given again: what it has done already is not there.
    """
    named = list(ids or ())
    unknown = [each for each in named if next(store.find(Filter.of_id(each)), None) is None]
    told = [
        f"There is no {store.nouns[0]} {each}; `segrelay {store.command} list` has the ids."
        for each in unknown
    ]
    if unknown and unknown == named:
        raise UsageWrong(told[0])
    for line in told:
        mention(line)


def deal_with(
    relay: Acts,
    store: Kept[Item],
    work: Work,
    extent: ExtentOptions,
    words: tuple[str, str],
    **arguments: Any,
) -> int:
    """Do the work if the person agrees, with its progress, as an act; return how many it took.

    Args:
        relay: The connection and the options that the frame gives a command, which may ask.
        store: The store of the things.
        work: The work to do; where it takes nothing, there is no question and no act.
        extent: The options with the number that the person has agreed to.
        words: The question with a place for the things, and the word for what is done to each.
        arguments: The arguments of the act.
    """
    question, label = words
    things = plural(work.count, *store.nouns)
    if extent.at_most is not None and work.count > extent.at_most:
        raise UsageWrong(
            f"It would be {things}, more than the {extent.at_most:,} of --at-most. Nothing was"
            " done."
        )
    if not work.count:
        return 0
    if isinstance(relay, Asks):
        relay.confirm(question.format(things))
    return perform(
        relay.client,
        relay.act(**arguments),
        lambda doing: doing.counted(label, work.steps(), work.count),
    )


def replay_chosen(
    relay: Acts,
    store: Kept[Item],
    options: KeptOptions,
    extent: ExtentOptions,
    ids: list[str] | None,
    *,
    force: bool,
) -> Result:
    """Replay the chosen things once a person agrees; of a dry run, return the fate of each."""
    options.refuse_accidental_all(ids, everything=extent.everything or extent.dry_run)
    refuse_unknown(store, ids)
    work = store.replay(options.chosen(relay.client, relay.settings, ids, force=force))
    left_out = [
        f"{count:,} left out: {store.why_left_out.get(why, why)}"
        for why, count in work.left_out.items()
    ]
    if extent.dry_run:
        return preview_of(store, work, left_out)
    for line in left_out:  # before the question
        mention(line)
    words = ("Replay {}?", store.verb)
    done = deal_with(relay, store, work, extent, words, **asdict(options), ids=ids)
    return store.result(work, done)


def discard_chosen(
    relay: Asks,
    store: Kept[Item],
    options: KeptOptions | WaitingOptions,
    extent: ExtentOptions,
    ids: list[str] | None = None,
) -> Result:
    """Discard the chosen things, and return how many that were."""
    refuse_unknown(store, ids)
    options.refuse_accidental_all(ids, everything=extent.everything)
    work = store.discard(options.chosen(relay.client, relay.settings, ids))
    if extent.dry_run:
        told = f"{plural(work.count, *store.nouns)} would be discarded"
        return Result({"would_be_discarded": work.count}, told)
    words = ("Discard {} for good?", "discarded")
    done = deal_with(relay, store, work, extent, words, **asdict(options), ids=ids)
    return Result({"discarded": done}, f"{plural(done, *store.nouns)} discarded")


def preview_of(store: Kept[Item], work: Work, notes: Iterable[str]) -> Result:
    """Return what would become of the chosen things."""
    previewed = list(work.preview())
    counts = Counter(one.fate for one in previewed)
    one, many = store.nouns
    document = {f"would_be_{fate}": counts[fate] for fate in store.fates}
    rows = [one._asdict() for one in previewed]
    return Result(
        {**document, "left_out": dict(work.left_out), many: rows},
        Table(
            (one, "would be", "reason", *text_columns("message")),
            [(f.id, f.fate, f.reason or "-", f.message[:MESSAGE_CHARACTERS]) for f in previewed],
        ),
        ", ".join(f"{counts[fate]:,} would be {fate}" for fate in store.fates),
        notes=notes,
    )


class Waiting(Kept[None]):
    """The deliveries that wait, as a store of kept things."""

    command = "discard"
    nouns = ("waiting delivery", "waiting deliveries")

    def discard(self, wanted: Filter) -> Work:
        """Return the work of taking back the deliveries that match."""
        streams = measure(self.client, self.streams(wanted))
        count = count_chosen(self.client, streams, wanted)
        return Work(count, lambda: take_back(self.client, self.settings, streams, wanted))

    def streams(self, wanted: Filter) -> list[Stream]:
        """Return the streams that hold deliveries which may match."""
        return find_streams(self.client, all_partitions(self.client, self.settings), wanted)


@dataclass(frozen=True, slots=True)
class WaitingOptions(FilterOptions):
    """Options that narrow each other."""

    job: Annotated[str, typer.Option(help="Only what this job has published.")] = ""
    destination: DestinationName = ""
    trigger: Annotated[str, typer.Option(help="Only what waits for this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only what is about this audience.")] = ""

    def refuse_accidental_all(self, ids: Iterable[str] | None, *, everything: bool) -> None:
        """Refuse a command that names nothing and does not say --all; entries have no ids."""
        if not (everything or ids) and self == WaitingOptions():
            raise UsageWrong("Name --job, --destination, --trigger or --audience, or say --all.")

    def chosen(self, *_: object) -> Filter:
        """Return the filter that these options stand for."""
        return Filter(**asdict(self))


def discard(*, options: WaitingOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Take back deliveries that are waiting; they are counted as discarded.

    Several options narrow each other. A worker may still send what it has read already. `segrelay
    dlq discard` is for dead letters, `segrelay quarantine discard` for what could not be placed.
    """
    return discard_chosen(relay, Waiting(relay.client, relay.settings), options, extent)


quarantine = typer.Typer(help="See, replay or discard events that could not be placed.")

_RECORDS_A_CALL: Final = 500
_PUBLIC: Final = ("id", "audience", "reason", "message", "lane", "times")
_WHY: Final = {
    Refusal.OLDER_THAN_LEDGER.value: "they are older than what the ledger remembers; --force takes"
    " them"
}


class QuarantinedRecords(Kept[QuarantineRecord]):
    """The records of the quarantine."""

    command = "quarantine"
    nouns = ("record", "records")
    verb = "placed"
    fates = ("placed", "kept")
    why_left_out = _WHY

    @cached_property
    def stored(self) -> Quarantine:
        return Quarantine(self.client)

    def find(self, wanted: Filter) -> Iterator[QuarantineRecord]:
        """Yield the records that match, in no order."""
        found = self.stored.records(wanted.ids)
        return (record for record in found if matches(record, wanted))

    def document(self, one: QuarantineRecord, *, reveal: bool) -> dict[str, Any]:
        """Return a record with its payload, masked unless revealed."""
        text = self.stored.text(one.id) or b""
        try:
            value = orjson.loads(text)
            payload = value if reveal else masked_payload(value)
        except orjson.JSONDecodeError:
            payload = text.decode(errors="replace") if reveal else f"{MASK} ({len(text)} bytes)"
        return about(one) | {"payload": payload}

    def replay(self, wanted: Filter) -> Work:
        """Return the work of placing the matching records that can be placed now.

        The others stay as they are. A record leaves only when its deliveries are in Redis: a crash
        in between makes it come twice, and the ledger settles the second as a duplicate.
        """

        def way(record: QuarantineRecord) -> tuple[str, bool]:
            return record.lane, record.skip_hook

        records = sorted(self.find(wanted), key=way)
        ids = frozenset(record.id for record in records)
        publisher = Publisher(self.client, self.settings)
        left_out: Counter[str] = Counter()

        def steps() -> Iterator[int]:
            left_out.clear()
            there = sorted(self.stored.records(ids), key=way)
            for (lane, skip_hook), members in groupby(there, key=way):
                options = PublishOptions(lane, skip_hook=skip_hook)
                while part := list(islice(members, _RECORDS_A_CALL)):
                    found = [(one, *self._judge(publisher, one, wanted)) for one in part]
                    left_out.update(reason for *_, reason, _ in found if reason)
                    if events := [event for _, events, *_ in found for event in events]:
                        self.accepted += publisher.publish(events, options).accepted
                    placed = [one.id for one, _, reason, _ in found if not reason]
                    yield self.stored.remove(placed)

        def preview() -> Iterator[Fate]:
            dry = Publisher(self.client, self.settings, dry_run=True)
            for record in records:
                _, reason, message = self._judge(dry, record, wanted)
                yield Fate(record.id, "kept" if reason else "placed", reason, message)

        return Work(len(ids), steps if ids else tuple, left_out, preview)

    def result(self, work: Work, done: int) -> Result:
        """Return how many records were placed, and why the others stay."""
        kept = work.left_out.total()
        document = {
            "tried": done + kept,
            "placed": done,
            "accepted": self.accepted,
            "kept": kept,
            "kept_by_reason": dict(work.left_out),
        }
        deliveries = plural(self.accepted, "delivery", "deliveries")
        told = f"{done:,} of {done + kept:,} placed, {deliveries} accepted"
        left_out = work.left_out.items()
        return Result(document, told, *(f"{n:,} stay: {_WHY.get(why, why)}" for why, n in left_out))

    def discard(self, wanted: Filter) -> Work:
        """Return the work of removing the records that match now."""
        ids = [record.id for record in self.find(wanted)]
        return Work(len(ids), lambda: [self.stored.remove(ids)])

    def _judge(
        self, publisher: Publisher, record: QuarantineRecord, wanted: Filter
    ) -> tuple[list[Event], str, str]:
        """Return the events of a record; else the reason why it can't be placed, with a message."""
        text = self.stored.text(record.id)
        if not text:
            return [], record.reason, record.message
        options = PublishOptions(
            record.lane,
            state=record.state,
            skip_hook=record.skip_hook,
            older_than_ledger=wanted.older_than_ledger,
        )
        found = publisher.read_again(text, options, arrived_us=record.first_seen_ms * 1_000)
        for item in found:
            if isinstance(item, Refused):
                return [], item.reason.value, item.message
        events = [item for item in found if isinstance(item, Event)]
        return (events, "", "") if events else ([], record.reason, record.message)


def matches(record: QuarantineRecord, wanted: Filter) -> bool:
    """Say whether a filter matches a record."""
    return (
        (not wanted.ids or record.id in wanted.ids)
        and wanted.audience in ("", record.audience)
        and wanted.reason in ("", record.reason)
        and record.last_seen_ms >= wanted.since_ms
        and (not wanted.until_ms or record.last_seen_ms < wanted.until_ms)
    )


def about(record: QuarantineRecord) -> dict[str, Any]:
    """Return the document of a record, without its payload."""
    return {name: getattr(record, name) for name in _PUBLIC} | {
        "first_seen_at": shown_ms(record.first_seen_ms),
        "last_seen_at": shown_ms(record.last_seen_ms),
    }


@quarantine.command("list")
def list_records(
    *,
    options: KeptOptions,
    limit: Annotated[
        int, typer.Option(help="With --json, print at most this many records.", min=1)
    ] = 1_000,
    relay: Reads,
) -> Result:
    """List the quarantined records by audience and reason; with --json, record by record."""
    store = QuarantinedRecords(relay.client, relay.settings)
    records = list(store.find(options.chosen(relay.client, relay.settings, None)))
    totals = store.stored.totals()
    columns: TableColumns = (
        *number_columns("records", "times"),
        "last seen",
        "sample",
        *text_columns("what"),
    )
    rows = [
        (group["audience"] or "-", *counts, shown_ms(seen_ms), sample, message)
        for group in groups_of(records, relay.settings)
        for _, *counts, seen_ms, sample, message in [group.values()]
    ]
    dropped = f"{totals.dropped:,} older ones went because there was too much."
    return Result(
        [about(one) for one in sorted(records, key=lambda one: -one.last_seen_ms)[:limit]],
        Table(("audience", "reason", *columns), rows),
        f"{plural(totals.records, 'record')}, {totals.bytes / 1e6:,.1f} MB",
        notes=[dropped] if totals.dropped else (),
    )


def groups_of(records: Iterable[QuarantineRecord], settings: Settings) -> list[dict[str, Any]]:
    """Return a document for each audience and reason of refusal, the most frequent first.

    The newest record of each is the sample.
    """
    found: defaultdict[tuple[str, str], list[QuarantineRecord]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    samples = [
        (max(group, key=lambda record: record.last_seen_ms), group) for group in found.values()
    ]
    groups = [
        {
            "audience": sample.audience,
            "reason": sample.reason,
            "records": len(group),
            "times": sum(record.times for record in group),
            "last_seen_ms": sample.last_seen_ms,
            "sample": sample.id,
            "message": sample.message + _did_you_mean(sample, settings),
        }
        for sample, group in samples
    ]
    return sorted(groups, key=lambda group: (-group["times"], group["audience"]))


def _did_you_mean(record: QuarantineRecord, settings: Settings) -> str:
    """Return a hint at a configured audience with a similar slug; "" = there is none."""
    named = {name for each in settings.triggers.values() for name in each.audiences}
    if record.reason != Refusal.NO_TRIGGER or record.audience in named - {ALL_AUDIENCES}:
        return ""
    close = difflib.get_close_matches(record.audience, named - {ALL_AUDIENCES}, n=1)
    return f" A trigger names '{close[0]}': is it that?" if close else ""


@quarantine.command("show")
def show_record(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    relay: Reads,
) -> Result:
    """Show one record with its payload; profile fields are masked."""
    store = QuarantinedRecords(relay.client, relay.settings)
    return show_one(store, record_id, reveal=reveal)


@quarantine.command("replay")
def replay_records(
    ids: Ids = None,
    *,
    options: KeptOptions,
    extent: ExtentOptions,
    force: Force = False,
    relay: Acts,
) -> Result:
    """Try again to place records that may have a trigger, an identity or a known audience by now.

    What still can't be placed stays where it is. So do events that are older than what the ledger
    remembers (delivery.ledger_retention): somebody may have left since without a trace.
    """
    store = QuarantinedRecords(relay.client, relay.settings)
    return replay_chosen(relay, store, options, extent, ids, force=force)


@quarantine.command("discard")
def discard_records(
    ids: Ids = None, *, options: KeptOptions, extent: ExtentOptions, relay: Asks
) -> Result:
    """Remove records from the quarantine for good."""
    store = QuarantinedRecords(relay.client, relay.settings)
    return discard_chosen(relay, store, options, extent, ids)
