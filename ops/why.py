"""`segrelay why`: all that is known of a person: what was delivered, what waits and why, deaths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple

import typer

from segrelay.ops.dead_letters.reading import StoredDeadLetter, find_dead_letters
from segrelay.ops.outcomes import rows_about
from segrelay.ops.state.opened import Reads
from segrelay.ops.state.partitions import Stream, all_partitions, is_orphan
from segrelay.ops.state.person import (
    KnownPerson,
    LedgerLine,
    Names,
    is_digest,
    person_named,
    read_records,
)
from segrelay.ops.state.waiting import (
    Delays,
    Filter,
    WaitingEntry,
    find_streams,
    read_entries,
    times,
)
from segrelay.ops.status.standing import Condition, Standing, read_standing
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.ops.terminal.tables import text_columns
from segrelay.producer.events.payloads import load, opened, profile_key
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord
from segrelay.worker.batch.partition import Intent
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import (
    MOST_REQUESTS,
    REQUEST_ID,
    WebhookRequest,
    read_requests,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Skip, job_of_lane
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.errors import PayloadRefused, UsageWrong

_SAME_MS: Final = 10_000
"""The most ms between the times of a death and its dead letter, which two clocks tell."""
_SAID_ALREADY: Final = tuple(reason.value for reason in Skip if not reason.effects.is_news)
"""Remarks on skipped events of which another event tells the same, or more."""
ENDS: Final = frozenset({"delivered", "skipped", "dead", "dead letter", "quarantined"})


def why(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="A value of the identity, such as an email address, a digest of `verify`, or the"
            " id of a webhook request from the receiver's log.",
        ),
    ],
    *,
    relay: Reads,
) -> Result:
    """Tell what was delivered for a person, what waits, what died, and what happened lately."""
    if REQUEST_ID.fullmatch(profile):
        return _request(relay.client, profile)
    known = explain(relay.client, relay.settings, profile)
    timeline = timeline_of(known)
    left = [] if known.is_whole else [f"Only the first {MOST_ENTRIES:,} that wait were looked at."]
    return Result(_document(known, timeline), *_text(known, timeline), notes=left)


def timeline_of(known: KnownProfile) -> list[Moment]:
    """Return all that happened to a person, and what waits of them, the oldest first."""
    return sorted(_moments(known), key=lambda moment: moment.at_ms)


def _moments(known: KnownProfile) -> Iterator[Moment]:
    # Deaths whose letters are there are told by the letters.
    dead_letters = {
        (each["trigger"], each["audience"], each["time_us"], each["last_at_ms"] // _SAME_MS)
        for each in known.dead_letters
    }
    for moment in known.past:
        own = (moment.trigger, moment.audience, moment.event_us, moment.at_ms // _SAME_MS)
        if moment.what != "dead" or own not in dead_letters:
            yield moment
    yield from map(_of_dead_letter, known.dead_letters)
    yield from known.waiting
    for record in known.quarantined:
        detail = f"{record.id}: {record.reason}"
        yield Moment(record.last_seen_ms, "quarantined", audience=record.audience, detail=detail)
    for request in known.requests:
        detail = f"by the webhook request {request.name}, which the receiver's log names too"
        yield Moment(request.at_ms, "received", detail=detail)


def tells_less(one: Moment) -> bool:
    """Say whether a line is about an event of which another one tells the same, or more."""
    return one.what == "tried" or one.detail.startswith(_SAID_ALREADY)


def verdict(known: KnownProfile, timeline: Sequence[Moment]) -> str:
    """Return the last sentence: about the deliveries that wait, else about the last outcome."""
    waiting = [moment for moment in timeline if moment.what in ("waits", "orphaned")]
    if waiting:
        first = min(waiting, key=lambda moment: moment.at_ms)
        wait = "waits" if len(waiting) == 1 else "wait"
        return (
            f"{plural(len(waiting), 'delivery', 'deliveries')} {wait} since"
            f" {shown_ms(first.at_ms)} {first.detail}."
        )
    ended = [one for one in timeline if one.what in ENDS]
    ended = [one for one in ended if not tells_less(one)] or ended
    if not ended:
        delivered = any(one.delivered_us for lines in known.ledger.values() for one in lines)
        ledger = "What was delivered stands in the ledger; when it was is not known now."
        return f"Nothing waits. {ledger if delivered else 'Nothing was delivered.'}"
    last = max(ended, key=lambda moment: moment.at_ms)
    if last.what == "quarantined":
        of = last.audience or "no audience"
        return f"The last event (of {of}) came, and could not be placed: {last.detail}."
    event = f"{last.direction} of {last.audience} at {shown_us(last.event_us)}"
    what = f"The last event ({event}, for {last.trigger})"
    if last.what != "delivered":
        return f"{what} is {last.what.removesuffix(' letter')}: {last.detail}."
    tries = 1 + sum(
        moment.what == "retry"
        and (moment.trigger, moment.audience, moment.event_us)
        == (last.trigger, last.audience, last.event_us)
        for moment in timeline
    )
    after = f" after {tries:,} tries" if tries > 1 else ""
    answered = f", {last.detail}" if last.detail else ""
    return f"{what} was delivered{after} at {shown_ms(last.at_ms)}{answered}."


def _of_dead_letter(dead_letter: StoredDeadLetter) -> Moment:
    return Moment(
        dead_letter["last_at_ms"],
        "dead letter",
        dead_letter["destination"],
        dead_letter["trigger"],
        dead_letter["audience"],
        dead_letter["direction"],
        dead_letter["time_us"],
        f"{dead_letter['id']}: {dead_letter['reason']}:"
        f" {normalise_message(dead_letter['message'])}",
    )


def _request(client: Redis, name: str) -> Result:
    """Return what is known of one webhook request."""
    found = next((one for one in read_requests(client) if one.name == name), None)
    if found is None:
        raise UsageWrong(
            f"Nothing is known of the request {name}: only the last {MOST_REQUESTS:,} are kept,"
            " and it takes a few seconds until one is."
        )
    people = [digest.hex() for digest in found.people]
    document = {
        "request": name,
        "at": shown_ms(found.at_ms),
        "status": found.status,
        "accepted": found.accepted,
        "quarantined": found.quarantined,
        "people": people,
    }
    shown = document | {"people": ", ".join(people) or "-"}
    hint = "`segrelay why DIGEST` tells about each of these people."
    lines = (f"{key}: {value}" for key, value in shown.items())
    return Result(document, *lines, notes=[hint] if people else ())


def _document(known: KnownProfile, timeline: list[Moment]) -> dict[str, Any]:
    return {
        "profile": {"digest": known.person.digest.hex(), "partition": known.person.partition},
        "known": not known.is_nothing,
        "ledger": list(ledger_of(known)),
        "waiting": [_row_of(moment) for moment in known.waiting],
        "waiting_is_whole": known.is_whole,
        "letters": [dead_letter["id"] for dead_letter in known.dead_letters],
        "quarantined": [record.id for record in known.quarantined],
        "timeline": [_row_of(moment) for moment in timeline],
        "verdict": "" if known.is_nothing else verdict(known, timeline),
    }


def ledger_of(known: KnownProfile) -> Iterator[dict[str, Any]]:
    """Yield what the ledger knows of a person: the newest of each audience and trigger."""
    for destination, lines in known.ledger.items():
        for line in lines:
            yield {
                "destination": destination,
                "audience": line.audience,
                "trigger": line.trigger,
                "direction": line.direction.value,
                "delivered": shown_us(line.delivered_us) if line.delivered_us else None,
                "tried": shown_us(line.tried_us) if line.tried_us else None,
                "confirmed_without_sending": line.raised,
            }


def _row_of(moment: Moment) -> dict[str, Any]:
    names = ("what", "destination", "trigger", "audience", "direction")
    return {
        "at": shown_ms(moment.at_ms),
        **{name: getattr(moment, name) for name in names},
        "event_time": shown_us(moment.event_us) if moment.event_us else None,
        "detail": moment.detail,
    }


def _text(known: KnownProfile, timeline: list[Moment]) -> Iterator[str | Table]:
    if known.is_nothing:
        yield "Nothing is known of this person: no delivery, nothing waiting, no letter."
        return
    if not any(known.ledger.values()):
        yield "The ledger knows of no delivery."
    else:
        yield "The ledger: the newest that was delivered."
        columns = ("destination", "audience", "trigger", "direction")
        ledger = [
            (*(line[name] for name in columns), line["delivered"] or "-", line["tried"] or "-")
            for line in ledger_of(known)
        ]
        yield Table((*columns, "event time", "without answer"), ledger)
    if timeline:
        yield ""
        names = ("at", "what", "destination", "trigger", "audience", "direction", "event time")
        rows = [tuple(value or "-" for value in _row_of(moment).values()) for moment in timeline]
        yield Table((*names, *text_columns("detail")), rows)
    yield ""
    yield verdict(known, timeline)


@dataclass(slots=True)
class Obstacles:
    """The reasons why deliveries of a person wait: the standing, and intents in doubt."""

    standing: Standing
    intents: Mapping[PartitionKeys, Sequence[Intent]]

    def moment(self, entry: WaitingEntry) -> Moment:
        """Return the line about an entry, with the reasons why it waits."""
        header, why = entry.header, "; ".join(self.of(entry))
        assert header is not None
        return Moment(
            entry.since_ms,
            "orphaned" if self.is_orphan(entry) else "waits",
            entry.stream.partition.destination,
            entry.stream.trigger,
            header.audience,
            header.direction.value,
            header.time_us,
            f"in lane {entry.stream.lane}" + (f": {why}" if why else ""),
        )

    def is_orphan(self, entry: WaitingEntry) -> bool:
        """Say whether the trigger of an entry is gone."""
        return is_orphan(self.standing.settings, entry.stream.partition, entry.stream.trigger)

    def of(self, entry: WaitingEntry) -> Iterator[str]:
        """Yield the reasons why an entry waits; none = it is due."""
        trigger, job = entry.stream.trigger, job_of_lane(entry.stream.lane)
        if self.is_orphan(entry):
            yield "the configuration has no such trigger for this destination"
        else:
            for _, one in self.standing.stopping([trigger], job):
                if one.state not in _TOLD_OF_THE_ENTRY:
                    yield f"the {one.kind} is {one.state}: {_reason_of(one)}"
        yield from self._delays(entry)
        yield from self._intents(entry)
        if self.standing.idle:
            yield self.standing.idle

    def _delays(self, entry: WaitingEntry) -> Iterator[str]:
        delays = self.standing.delays.get(entry.stream.partition, Delays())
        backoff = delays.backoffs.get(f"{entry.stream.name}|{entry.entry_id}")
        if backoff:
            why = f"was refused: {backoff.refusal}" if backoff.refusal else "failed"
            again = self._again(backoff.not_before_ms)
            yield f"its last request {why} (so far {times(backoff.failures)}){again}"
        wait = delays.waits.get(entry.stream.trigger)
        if wait:
            why = f": {wait.reason}" if wait.reason else ""
            again = self._again(wait.not_before_ms)
            tried = times(wait.attempts)
            yield f"the trigger waits, nothing went through, tried {tried}{why}{again}"

    def _intents(self, entry: WaitingEntry) -> Iterator[str]:
        header = entry.header
        own = f"{entry.stream.name}|{entry.entry_id}"
        ends = [
            intent.open_until_ms
            for intent in self.intents[entry.stream.partition]
            for position, other in intent.deliveries
            if header and other.digest == header.digest and position != own
        ]
        if ends and max(ends) > self.standing.now_ms:
            yield (
                "a request with this person got no sure answer and may still take effect (its"
                f" intent is in doubt); it waits until {shown_ms(max(ends))}"
            )

    def _again(self, at_ms: int) -> str:
        return f", tried again after {shown_ms(at_ms)}" if at_ms > self.standing.now_ms else ""


_TOLD_OF_THE_ENTRY: Final = frozenset({"refused", "waits", "orphaned"})
"""States of triggers that are told by the delays of the entry's own partition."""


def _reason_of(one: Condition) -> str:
    by = f"by {one.by}" if one.by else ""
    since = f"since {shown_ms(one.since_ms, 'seconds')}" if one.since_ms else ""
    who = f" ({' '.join(filter(None, (by, since)))})" if by or since else ""
    return f"{one.message or one.reason or 'by a person'}{who}"


def _intents_in_doubt(client: Redis, partition: PartitionKeys) -> Iterator[Intent]:
    ends: Any = client.hgetall(partition.open)
    texts: Any = client.hmget(partition.intents, list(ends)) if ends else []
    for (name, end), text in zip(ends.items(), texts, strict=True):
        if text is not None:
            yield Intent.loads(name.decode(), text, int(end))


MOST_ENTRIES: Final = 100_000
"""The largest number of waiting entries that are read: more would take minutes."""

_MOST_DEAD_LETTERS: Final = 100
_MOST_FOUND: Final = 1_000


class Moment(NamedTuple):
    """One line of a person's timeline.

    Attributes:
        at_ms: The time of the line, by Redis' clock.
        event_us: The time of the event that it is about; 0 = it is about none.
    """

    at_ms: int
    what: str
    destination: str = ""
    trigger: str = ""
    audience: str = ""
    direction: str = ""
    event_us: int = 0
    detail: str = ""


@dataclass(slots=True)
class KnownProfile:
    """All that is known of a profile.

    Args:
        waiting: The deliveries that wait, with the reasons why.
        requests: The requests to the receiver that brought events of this person lately.
        is_whole: True if all that waits was looked at.
    """

    person: KnownPerson
    ledger: dict[str, list[LedgerLine]] = field(default_factory=dict)
    waiting: list[Moment] = field(default_factory=list)
    dead_letters: list[StoredDeadLetter] = field(default_factory=list)
    past: list[Moment] = field(default_factory=list)
    quarantined: list[QuarantineRecord] = field(default_factory=list)
    requests: list[WebhookRequest] = field(default_factory=list)
    is_whole: bool = True

    @property
    def is_nothing(self) -> bool:
        """Say whether nothing is known of the profile."""
        delivered = any(self.ledger.values())
        stored = self.waiting or self.dead_letters or self.past or self.quarantined
        return not (delivered or stored or self.requests)


def explain(client: Redis, settings: Settings, text: str) -> KnownProfile:
    """Find a profile by what was typed, and return all that is known of it; see `find_profile`."""
    known = find_profile(client, settings, text)
    digest, identity = known.person.digest, settings.delivery.identity
    known.quarantined = list(quarantined(client, Quarantine(client).records(), identity, digest))
    known.requests = [one for one in read_requests(client) if digest in one.people]
    return known


def find_profile(
    client: Redis, settings: Settings, text: str, most: int = MOST_ENTRIES
) -> KnownProfile:
    """Find a profile by what was typed, and return what is known by its digest.

    The text is a known digest, as `verify` prints it; else a value of the identity field.

    Args:
        client: Redis.
        settings: The configuration.
        text: The value of the identity field, or a digest.
        most: The number of waiting entries that are read.

    Raises:
        UsageWrong: It can be nobody's identity, and is no known digest.
    """
    person = _with_digest(client, settings, text) or person_named(text, settings)
    return explain_person(client, settings, person, most)


def explain_person(
    client: Redis,
    settings: Settings,
    person: KnownPerson,
    most: int = MOST_ENTRIES,
    standing: Standing | None = None,
) -> KnownProfile:
    """Return what is known of a profile by its digest; see `explain` for what needs its text.

    Args:
        client: Redis.
        settings: The configuration.
        person: The profile.
        most: The number of waiting entries that are read.
        standing: The standing of the installation; None = it is read if something waits.
    """
    known = KnownProfile(person)
    names = Names(client)
    everywhere = all_partitions(client, settings)
    partitions = [each for each in everywhere if each.number == person.partition]
    digest_hex = person.digest.hex()
    for partition in partitions:
        (record,) = read_records(client, partition, [person.digest])
        known.ledger[partition.destination] = list(names.lines(record))
        for row in rows_about(client, partition, [digest_hex]):
            if row.counts >= 0:  # a death that is taken back is told by what became of it
                where = (partition.destination, row.trigger, row.audience, row.direction)
                detail = row.message or (f"answered {row.status}" if row.status else "")
                known.past.append(
                    Moment(row.time_ms, row.outcome, *where, row.event_time_us, detail)
                )
    streams = find_streams(client, partitions)
    entries, known.is_whole = _waiting(client, streams, person.digest, most)
    if entries:
        obstacles = Obstacles(
            standing or read_standing(client, settings),
            {partition: list(_intents_in_doubt(client, partition)) for partition in partitions},
        )
        known.waiting = list(map(obstacles.moment, entries))
    letters = find_dead_letters(client, partitions, Filter(digests=frozenset({digest_hex})))
    known.dead_letters = list(islice(letters, _MOST_DEAD_LETTERS))
    return known


def _waiting(
    client: Redis, streams: Iterable[Stream], digest: bytes, most: int
) -> tuple[list[WaitingEntry], bool]:
    """Return the deliveries that wait of a person, and whether all entries were read."""
    found: list[WaitingEntry] = []
    entries = (entry for stream in streams for entry in read_entries(client, stream))
    for number, entry in enumerate(entries):
        if number == most or len(found) == _MOST_FOUND:
            return found, False
        if entry.header and entry.header.digest == digest:
            found.append(entry)
    return found, True


def _with_digest(client: Redis, settings: Settings, text: str) -> KnownPerson | None:
    """Find a profile by the digest that other commands print."""
    if not is_digest(text.strip().lower()):
        return None
    digest = bytes.fromhex(text.strip())
    partitions = all_partitions(client, settings)
    for partition in partitions:
        (record,) = read_records(client, partition, [digest])
        if record.items or any(rows_about(client, partition, [digest.hex()])):
            return KnownPerson(digest, partition.number)
    wanted = Filter(digests=frozenset([digest.hex()]))
    dead_letter = next(find_dead_letters(client, partitions, wanted), None)
    if dead_letter:
        return KnownPerson(digest, dead_letter["partition"])
    waiting, _ = _waiting(client, find_streams(client, partitions), digest, MOST_ENTRIES)
    return KnownPerson(digest, waiting[0].stream.partition.number) if waiting else None


def quarantined(
    client: Redis,
    records: Iterable[QuarantineRecord],
    identity: str,
    digest: bytes,
    text: str = "",
) -> Iterator[QuarantineRecord]:
    """Yield those of the quarantine's records that are about a person or hold the text."""
    quarantine = Quarantine(client)
    wanted = text.strip().casefold().encode()
    for record in records:
        content = quarantine.text(record.id) or b""
        if (wanted and wanted in content.lower()) or _digest_in(content, identity) == digest:
            yield record


def _digest_in(content: bytes, identity: str) -> bytes | None:
    """Return the digest of the person in a payload; None = it has none, or can't be read."""
    try:
        return digest_of(profile_key(opened(load(content))[0], identity))
    except PayloadRefused:
        return None
