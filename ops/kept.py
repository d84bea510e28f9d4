"""Things kept until a person deals with them: dead letters, quarantined records, what waits.

Each of the three is a `Kept`, and its commands are thin over what stands here: the options that
choose, the masking, the dry run, the question, the progress, the act in the audit, the output.
`segrelay discard`, which takes back what waits, stands here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import typer

from segrelay.ops.send.sending import WaitOptions
from segrelay.ops.state.acts import Acts, Asks, perform
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.waiting import Filter, count_chosen, find_streams, measure, take_back
from segrelay.ops.terminal.console import fields_of, mention
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import parse_moment_ms
from segrelay.ops.terminal.options import All, AtMost, DestinationName, DryRun, FilterOptions
from segrelay.ops.terminal.tables import text_columns
from segrelay.producer.publishing.published import Published
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
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
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for.

        Args:
            client: Redis, whose clock counts.
            settings: The configuration.
            ids: The ids that were named.
            force: True if a replay takes also what is older than the ledger remembers.
        """
        del settings
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

    def refuse_more(self, count: int, nouns: tuple[str, str]) -> None:
        """Refuse work that was chosen if it is more than a person has agreed to."""
        if self.at_most is not None and count > self.at_most:
            raise UsageWrong(
                f"It would be {plural(count, *nouns)}, more than the {self.at_most:,} of"
                " --at-most. Nothing was done."
            )


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
        steps: Does it, and yields how many things each step took. Where Redis was away, it is
            called again, and goes on with what is left.
        left_out: The number of things that stay, by reason; where only the steps can tell, it is
            whole once they are done.
        fates: The words for what can become of a thing, for a dry run.
        preview: A function that says what would become of each thing.
    """

    count: int
    steps: Callable[[], Iterable[int]]
    left_out: Counter[str] = field(default_factory=Counter)
    fates: tuple[str, ...] = ()
    preview: Callable[[], Iterable[Fate]] = tuple


Item = TypeVar("Item")


@dataclass
class Kept:
    """A store of things that wait for a person.

    Attributes:
        command: The command that deals with them.
        nouns: The word for one of them, and for several.
    """

    client: Redis
    settings: Settings
    command: ClassVar[str]
    nouns: ClassVar[tuple[str, str]]

    def discard(self, wanted: Filter) -> Work:
        """Return the work of removing the matching things for good."""
        raise NotImplementedError


@dataclass
class Refusals(Kept, Generic[Item]):
    """A store whose things a person can look at one by one, and have delivered after all.

    Attributes:
        verb: The word for a thing that was replayed.
        why_left_out: The reasons why things stay in words, where their name does not say it.
        published: The result of its replays.
    """

    verb: ClassVar[str]
    why_left_out: ClassVar[Mapping[str, str]]
    published: Published = field(default_factory=Published, init=False)

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


def show_one(store: Refusals[Item], one_id: str, *, reveal: bool) -> Result:
    """Return one thing with all that is known.

    Raises:
        UsageWrong: There is none with this id.
    """
    refuse_unknown(store, [one_id])
    found = next(store.find(Filter.of_id(one_id)))
    document = store.document(found, reveal=reveal)
    return Result(document, *store.lines(document))


def refuse_unknown(store: Refusals[Item], ids: Iterable[str] | None) -> None:
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


def carry_out(
    relay: Acts, work: Work, label: str, subject: str = "", question: str = "", **arguments: Any
) -> int:
    """Do the work if the person agrees, with its progress, as an act; return how many it took.

    Args:
        relay: The connection and the options that the frame gives a command.
        work: The work to do; where it takes nothing, there is no question and no act.
        label: The word for what is done to each thing.
        subject: The subject of the act.
        question: The question to the person, of a command that asks.
        arguments: The arguments of the act.
    """
    if not work.count:
        return 0
    if isinstance(relay, Asks):
        relay.confirm(question)
    return perform(
        relay.client,
        relay.act(subject, **arguments),
        lambda doing: doing.counted(label, work.steps(), work.count),
    )


def replay_chosen(
    relay: Acts,
    store: Refusals[Item],
    options: KeptOptions,
    extent: ExtentOptions,
    ids: list[str] | None,
    *,
    force: bool,
    waiting: WaitOptions,
) -> Result:
    """Replay the chosen things once a person agrees; of a dry run, return the fate of each."""
    options.refuse_accidental_all(ids, everything=extent.everything or extent.dry_run)
    refuse_unknown(store, ids)
    waiting.refuse_wrong(dry_run=extent.dry_run)
    work = store.replay(options.chosen(relay.client, relay.settings, ids, force=force))
    left_out = [
        f"{count:,} left out: {store.why_left_out.get(why, why)}"
        for why, count in work.left_out.items()
    ]
    if extent.dry_run:
        return preview_of(store, work, left_out)
    extent.refuse_more(work.count, store.nouns)
    for line in left_out:  # before the question
        mention(line)
    question = f"Replay {plural(work.count, *store.nouns)}?"
    done = carry_out(relay, work, store.verb, question=question, **asdict(options), ids=ids)
    result = store.result(work, done)
    waiting.wait(relay, store.published, result)
    return result


def discard_chosen(
    relay: Asks,
    store: Kept,
    options: KeptOptions | WaitingOptions,
    extent: ExtentOptions,
    ids: list[str] | None = None,
) -> Result:
    """Discard the chosen things, and return how many that were."""
    if isinstance(store, Refusals):
        refuse_unknown(store, ids)
    options.refuse_accidental_all(ids, everything=extent.everything)
    work = store.discard(options.chosen(relay.client, relay.settings, ids))
    if extent.dry_run:
        told = f"{plural(work.count, *store.nouns)} would be discarded"
        return Result({"would_be_discarded": work.count}, told)
    extent.refuse_more(work.count, store.nouns)
    question = f"Discard {plural(work.count, *store.nouns)} for good?"
    done = carry_out(relay, work, "discarded", question=question, **asdict(options), ids=ids)
    return Result({"discarded": done}, f"{plural(done, *store.nouns)} discarded")


def preview_of(store: Kept, work: Work, notes: Iterable[str]) -> Result:
    """Return what would become of the chosen things."""
    previewed = list(work.preview())
    counts = Counter(one.fate for one in previewed)
    one, many = store.nouns
    document = {f"would_be_{fate}": counts[fate] for fate in work.fates}
    rows = [one._asdict() for one in previewed]
    return Result(
        {**document, "left_out": dict(work.left_out), many: rows},
        Table(
            (one, "would be", "reason", *text_columns("message")),
            [(f.id, f.fate, f.reason or "-", f.message[:MESSAGE_CHARACTERS]) for f in previewed],
        ),
        ", ".join(f"{counts[fate]:,} would be {fate}" for fate in work.fates),
        notes=notes,
    )


class Waiting(Kept):
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

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for."""
        del client, settings, ids, force
        return Filter(**asdict(self))


def discard(*, options: WaitingOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Take back deliveries that are waiting; they are counted as discarded.

    Several options narrow each other. A worker may still send what it has read already. `segrelay
    dlq discard` is for dead letters, `segrelay quarantine discard` for what could not be placed.
    """
    return discard_chosen(relay, Waiting(relay.client, relay.settings), options, extent)
