"""`segrelay dlq`: dead letters, why they died, and what to do with them.

A replay goes into the backfill lane and keeps the event's own time, so that the ledger refuses it
if something newer was delivered meanwhile. A crash in between neither loses nor doubles a
dead letter: one script takes it out and puts it back.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as with_fields
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import orjson
import typer

from segrelay.ops.dead_letters.reading import (
    StoredDeadLetter,
    find_dead_letters,
    read_causes,
)
from segrelay.ops.kept import (
    MESSAGE_CHARACTERS,
    ExtentOptions,
    Fate,
    Kept,
    KeptOptions,
    Work,
    discard_chosen,
    replay_chosen,
    show_one,
)
from segrelay.ops.state import opened
from segrelay.ops.state.opened import Asks, Reads
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.waiting import Filter
from segrelay.ops.terminal.console import fields_of, json_or_text
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.ops.terminal.options import DestinationName, Force, Ids, Reveal
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.adapters.redis.shared_keys import read_scopes
from segrelay.worker.checks.preview import Candidate, preview
from segrelay.worker.contract.events import (
    UNREADABLE,
    Header,
    decode_header,
    encode_header,
    pack_profile,
)
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name, stream_name
from segrelay.worker.contract.outcomes import End, log_bytes, pack
from segrelay.worker.contract.printable import MASK, hidden, masked_profile, plural
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import ScriptCall, script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import BACKFILL, Death, Refusal, job_of_lane
from segrelay.worker.core.messages import location_in, normalise_message
from segrelay.worker.errors import FormatUnknown, PayloadRefused

STEP: Final = 200
"""Dead letters of one step: few, because one may hold a profile of a megabyte."""

LEFT_OUT: Final = {
    "orphaned": "the configuration does not name their trigger any more",
    "unwanted": "their trigger has another direction or other audiences now",
    "unreadable": "what they hold can't be read; name them by id to put them back as they were",
    Refusal.OLDER_THAN_LEDGER.value: "older than what the ledger remembers; --force replays them",
}
_STEP_BYTES: Final = 4_000_000
_UNREADABLE: Final = "The entry can't be read by this version of segrelay."


class Expiry(NamedTuple):
    """The permission to discard dead letters that were kept for long enough.

    Attributes:
        before_ms: The time before which they have died.
        until_ms: The end of the permission, by Redis' clock.
    """

    before_ms: int
    until_ms: int


class DeadLetters(Kept[StoredDeadLetter]):
    """The dead letters in Redis."""

    command = "dlq"
    nouns = ("letter", "letters")
    verb = "replayed"
    fates = ("sent", "skipped", "dead")
    why_left_out = LEFT_OUT

    def find(self, wanted: Filter) -> Iterator[StoredDeadLetter]:
        """Yield the dead letters that match, the newest death first."""
        return find_dead_letters(self.client, all_partitions(self.client, self.settings), wanted)

    def document(self, one: StoredDeadLetter, *, reveal: bool) -> dict[str, Any]:
        """Return a dead letter as it is printed, with the place that failed and its times."""
        location = failed_at(self.settings, one["trigger"], one["message"])
        return (
            {"location": location}
            | shown(one, reveal=reveal)
            | {
                "time": shown_us(one["time_us"]),
                "first_at": shown_ms(one["first_at_ms"]),
                "last_at": shown_ms(one["last_at_ms"]),
            }
        )

    def lines(self, document: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines about a dead letter: its event, why it died, and what to do next."""
        one = document
        yield f"{one['direction']} of {one['audience']} at {one['time']}, for {one['trigger']}"
        answered = f", answered {one['status']}" if one["status"] else ""
        yield f"died at {one['last_at']}: {one['reason']}{answered}, cause {one['cause']}"
        kept = ("message", "answer", "body", "profile")
        yield from fields_of({name: one[name] for name in kept if one[name]})
        template = one["location"].partition(":")[0]
        if template:
            yield f"→ segrelay template render {template} {one['id']} --explain"
        yield f"→ segrelay dlq replay {one['id']} --dry-run"

    def replay(self, wanted: Filter) -> Work:
        """Return the replay of the dead letters that match, the oldest death first.

        Letters of events before what the ledger remembers are left out.
        """
        at_ms = now_ms(self.client)
        oldest_us = 0
        if not wanted.older_than_ledger:
            oldest_us = self.settings.delivery.remembers_since_us(1_000 * at_ms)
        scopes = read_scopes(self.client, self.settings)
        ids: list[str] = []
        left_out: Counter[str] = Counter()
        for one in self.find(wanted):
            reason = obstacle(one, self.settings, oldest_us, scopes, named=bool(wanted.ids))
            if reason:
                left_out[reason] += 1
            else:
                ids.append(one["id"])
        ids.reverse()
        audiences = AudienceStore(self.client, learns=False)
        partitions = all_partitions(self.client, self.settings)
        return Work(
            len(ids),
            lambda: self._leave(partitions, ids, audiences),
            left_out,
            lambda: self._preview(partitions, ids, audiences, at_ms),
        )

    def result(self, work: Work, done: int) -> Result:
        """Return how many dead letters were replayed, and how many left out."""
        document = {"replayed": done, "left_out": dict(work.left_out)}
        return Result(document, f"{plural(done, *self.nouns)} replayed")

    def discard(self, wanted: Filter) -> Work:
        """Return the work of discarding the dead letters that match now."""
        ids = [one["id"] for one in self.find(wanted)]
        partitions = all_partitions(self.client, self.settings)
        return Work(len(ids), lambda: self._leave(partitions, ids, None))

    def discard_expired(self, partition: PartitionKeys, ids: Sequence[str], expiry: Expiry) -> int:
        """Discard dead letters of a partition that were kept for long enough; return how many."""
        return sum(self._leave([partition], ids, None, expiry))

    def _leave(
        self,
        partitions: Sequence[PartitionKeys],
        ids: Sequence[str],
        audiences: AudienceStore | None,
        expiry: Expiry | None = None,
    ) -> Iterator[int]:
        """Replay dead letters step by step, or discard them for good where no audiences are given.

        Yields how many dead letters each step took. An event without the id of its audience gets
        it, if it is known by now.

        Raises:
            RedisUnavailable: The steps before were taken.
        """
        most_bytes, waker = log_bytes(self.settings), CeleryWaker(self.settings)
        remaining = iter(ids)
        while part := frozenset(islice(remaining, STEP)):
            groups: defaultdict[PartitionKeys, list[StoredDeadLetter]] = defaultdict(list)
            for one in find_dead_letters(self.client, partitions, Filter(ids=part)):
                known = identified(one, audiences) if audiences else one
                groups[PartitionKeys(one["destination"], one["partition"])].append(known)
            for keys, dead_letters in groups.items():
                for chunk in _chunks(dead_letters):
                    call = _call(keys, chunk, most_bytes, discards=audiences is None, expiry=expiry)
                    ((taken, wake),) = opened.run(self.client, "leave", [call])
                    if wake:
                        waker.wake([(keys.destination, keys.number)], queue=BACKFILL)
                    yield taken

    def _preview(
        self,
        partitions: Sequence[PartitionKeys],
        ids: Sequence[str],
        audiences: AudienceStore,
        at_ms: int,
    ) -> Iterator[Fate]:
        """Yield the fate that a replay would have for each dead letter that can be replayed."""
        for first in range(0, len(ids), STEP):
            part = Filter(ids=frozenset(ids[first : first + STEP]))
            readable: list[Candidate] = []
            for one in find_dead_letters(self.client, partitions, part):
                candidate = candidate_of(identified(one, audiences))
                if candidate:
                    readable.append(candidate)
                else:
                    yield Fate(one["id"], "dead", Death.UNREADABLE.value, _UNREADABLE)
            for found in preview(readable, self.settings, now_us=1_000 * at_ms):
                yield Fate(found.name, found.fate, found.reason, found.safe_message)


def failed_at(settings: Settings, trigger: str, message: str) -> str:
    """Return the line of the template that failed, or the template if the line is not known."""
    known = settings.triggers.get(trigger)
    return location_in(message) or (known.template if known else "")


def shown(dead_letter: StoredDeadLetter, *, reveal: bool) -> dict[str, Any]:
    """Return the fields of a dead letter with its body as JSON, and masked unless revealed."""
    body = json_or_text(dead_letter["body"])
    public = {key: value for key, value in dead_letter.items() if key != "header"}
    if reveal:
        return public | {"body": body}
    public.pop("entry", None)
    return public | {
        "message": normalise_message(dead_letter["message"]),
        "body": hidden(body) if body else body,
        "answer": MASK if dead_letter["answer"] else "",
        "profile": masked_profile(dead_letter["profile"]),
    }


def obstacle(
    dead_letter: StoredDeadLetter,
    settings: Settings,
    oldest_us: int,
    scopes: Mapping[str, Scope],
    *,
    named: bool = False,
) -> str:
    """Return the reason why a dead letter can't be replayed; "" if it can."""
    trigger = settings.triggers.get(dead_letter["trigger"])
    if trigger is None or trigger.destination != dead_letter["destination"]:
        return "orphaned"
    header = dead_letter_header(dead_letter)
    if header and not scopes[dead_letter["trigger"]].wants(header):
        return "unwanted"
    if header is None and not (named and entry_of(dead_letter)):
        return "unreadable"
    time_us = header.time_us if header else 1_000 * dead_letter["first_at_ms"]
    return Refusal.OLDER_THAN_LEDGER.value if time_us < oldest_us else ""


def identified(dead_letter: StoredDeadLetter, audiences: AudienceStore) -> StoredDeadLetter:
    """Return a dead letter whose event has the id of its audience, if one is known."""
    header = dead_letter_header(dead_letter)
    entries = dead_letter["profile"].get(SEGMENT_EVENTS) if header else None
    if not (header and isinstance(entries, list) and entries and isinstance(entries[0], dict)):
        return dead_letter
    return {**dead_letter, "profile": audiences.identified(dead_letter["profile"], header.audience)}


def _chunks(dead_letters: Sequence[StoredDeadLetter]) -> Iterator[list[StoredDeadLetter]]:
    """Yield the dead letters in chunks that are each small enough for one script."""
    chunk: list[StoredDeadLetter] = []
    size = 0
    for dead_letter in dead_letters:
        chunk.append(dead_letter)
        size += len(orjson.dumps(dead_letter))
        if size > _STEP_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _call(
    keys: PartitionKeys,
    dead_letters: Sequence[StoredDeadLetter],
    most_bytes: int,
    *,
    discards: bool,
    expiry: Expiry | None,
) -> ScriptCall:
    targets = [] if discards else list(dict.fromkeys(map(_target, dead_letters)))
    nothing = b"", b""
    entries = [nothing if discards else _entry(dead_letter) for dead_letter in dead_letters]
    ends: list[End] = []
    for death in map(end_of, dead_letters):  # it is taken back
        ends.append(death._replace(counts=-1))
        if discards:
            reason = "expired" if expiry else ""
            ends.append(death._replace(outcome="discarded", reason=reason))
    return script_call(
        opened.source("leave"),
        keys,
        to=list(map(keys.stream, targets)),
        names=targets,
        letters_to=[
            0 if discards else targets.index(_target(dead_letter)) + 1
            for dead_letter in dead_letters
        ],
        letters_header=[header for header, _ in entries],
        letters_profile=[profile for _, profile in entries],
        **{
            f"letters_{name}": [dead_letter[name] for dead_letter in dead_letters]
            for name in ("id", "cause", "stream", "reason")
        },
        expired=expiry or (),
        ends=[pack(ends), most_bytes],
    )


def end_of(dead_letter: StoredDeadLetter) -> End:
    """Return the row about the death of a dead letter."""
    return End(
        dead_letter_header(dead_letter) or UNREADABLE,
        dead_letter["stream"],
        "dead",
        dead_letter["reason"],
        dead_letter["template"],
        dead_letter["status"],
        dead_letter["attempts"],
        normalise_message(dead_letter["message"]),
    )


def _target(dead_letter: StoredDeadLetter) -> str:
    """Return the stream of a replayed dead letter: in the lane of its job, or the backfill lane."""
    lane, trigger = split_stream_name(dead_letter["stream"])
    return stream_name(lane if job_of_lane(lane) else BACKFILL, trigger)


def _entry(dead_letter: StoredDeadLetter) -> tuple[bytes, bytes]:
    """Return header and profile of a dead letter as an entry of a stream.

    An entry that could not be read goes back as it was.
    """
    header = dead_letter_header(dead_letter)
    if header is None:
        entry = entry_of(dead_letter)
        assert entry is not None
        return entry
    again = header._replace(replays=header.replays + 1)
    profile = pack_profile(orjson.dumps(dead_letter["profile"]))
    return encode_header(again), PROTECTION.seal(profile, again.digest)


def entry_of(dead_letter: StoredDeadLetter) -> tuple[bytes, bytes] | None:
    """Return header and profile as they were in the stream; None if the dead letter lacks them."""
    match dead_letter.get("entry"):
        case [str(header), str(profile)]:
            try:
                return base64.b64decode(header, validate=True), base64.b64decode(
                    profile, validate=True
                )
            except binascii.Error:
                return None
        case _:
            return None


def dead_letter_header(dead_letter: StoredDeadLetter) -> Header | None:
    """Return the header of a dead letter; None if its entry could not be read."""
    profile: Any = dead_letter["profile"]
    if not isinstance(profile, dict) or not dead_letter["header"]:
        return None
    try:
        header = decode_header(orjson.dumps(dead_letter["header"]))
    except (PayloadRefused, FormatUnknown):
        return None
    return header if header.digest and header.time_us else None


def candidate_of(dead_letter: StoredDeadLetter) -> Candidate | None:
    """Return the event of a dead letter; None if this version can't read its entry."""
    header = dead_letter_header(dead_letter)
    if "entry" in dead_letter or header is None:
        return None
    profile = orjson.dumps(dead_letter["profile"])
    return Candidate(dead_letter["id"], dead_letter["trigger"], header, profile)


@dataclass(frozen=True, slots=True)
class DeadLetterOptions(KeptOptions):
    """Options that narrow each other; none means all letters."""

    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause", help="Only letters of this cause, as `dlq causes` shows it; repeatable."
        ),
    ] = None
    destination: DestinationName = ""
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    job: Annotated[str, typer.Option(help="Only what this job has published.")] = ""
    text: Annotated[
        str,
        typer.Option(help="Only with this text in the message or the answer, as `show` has it."),
    ] = ""

    reasons: ClassVar[type[StrEnum]] = Death

    def chosen(
        self,
        client: Redis,
        settings: Settings,
        ids: Iterable[str] | None = None,
        *,
        force: bool = False,
    ) -> Filter:
        """Return the filter that these options stand for."""
        return with_fields(
            KeptOptions.chosen(self, client, settings, ids, force=force),
            causes=frozenset(self.cause or ()),
            destination=self.destination,
            trigger=self.trigger,
            job=self.job,
            containing=self.text,
        )


app = typer.Typer(help="See, replay or discard dead letters.")

_PAGE: Final = 100
_LISTED: Final = ("reason", "trigger", "audience", "direction", "cause")


@app.command()
def replay(
    ids: Ids = None,
    *,
    options: DeadLetterOptions,
    extent: ExtentOptions,
    force: Force = False,
    relay: Asks,
) -> Result:
    """Send dead letters again, through the backfill lane and with their event's own time.

    What something newer has made stale is skipped. An event without the id of its audience gets it,
    if it is known by now. A dry run renders with today's templates.
    """
    store = DeadLetters(relay.client, relay.settings)
    return replay_chosen(relay, store, options, extent, ids, force=force)


@app.command()
def discard(
    ids: Ids = None, *, options: DeadLetterOptions, extent: ExtentOptions, relay: Asks
) -> Result:
    """Discard dead letters for good; they are counted as discarded."""
    store = DeadLetters(relay.client, relay.settings)
    return discard_chosen(relay, store, options, extent, ids)


@app.command()
def causes(*, relay: Reads) -> Result:
    """Group dead letters by the cause of their death."""
    settings = relay.settings
    found = [
        (cause, failed_at(settings, cause.trigger, cause.message))
        for cause in read_causes(relay.client, all_partitions(relay.client, settings))
    ]
    columns: TableColumns = (
        "reason",
        "status",
        "trigger",
        "sample",
        "location",
        *text_columns("message"),
    )
    rows = [
        (
            c.cause,
            c.count,
            c.reason,
            c.status or "-",
            c.trigger,
            c.sample,
            location or "-",
            c.message.removeprefix(f"{location_in(c.message)}: "),
        )
        for c, location in found
    ]
    return Result(
        [asdict(c) | {"location": location} for c, location in found],
        Table(("cause", *number_columns("letters"), *columns), rows),
    )


@app.command("list")
def list_dead_letters(
    *,
    options: DeadLetterOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many letters.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Show this page of them, counted from 1.", min=1)] = 1,
    reveal: Reveal = False,
    relay: Reads,
) -> Result:
    """List dead letters, the newest death first."""
    client, settings = relay.client, relay.settings
    store = DeadLetters(client, settings)
    first = (page - 1) * limit
    found = store.find(options.chosen(client, settings, None))
    dead_letters = list(islice(found, first, first + limit))
    has_more = next(found, None) is not None
    partitions = all_partitions(client, settings)
    kept = sum(ask_each(client, partitions, lambda pipe, one: pipe.hlen(one.dead_letters)))
    documents = [store.document(each, reveal=reveal) for each in dead_letters]
    shown_of = ("id", "last_at", *_LISTED)
    return Result(
        documents,
        Table(
            ("letter", "died", *_LISTED, *text_columns("message")),
            [
                (*(one[name] for name in shown_of), one["message"][:MESSAGE_CHARACTERS])
                for one in documents
            ],
        ),
        f"{len(dead_letters):,} shown, of {plural(kept, 'letter')} in all",
        notes=[f"--page {page + 1} shows more."] if has_more else (),
    )


@app.command()
def show(
    dead_letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="The id, as `dlq list` shows it.")
    ],
    *,
    reveal: Reveal = False,
    relay: Reads,
) -> Result:
    """Show why a dead letter died, and what to do next; profile fields are masked.

    With --json it is all that is known of it.
    """
    store = DeadLetters(relay.client, relay.settings)
    return show_one(store, dead_letter_id, reveal=reveal)
