"""All that is known of one profile: its ledger, what waits and why, dead letters, its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from segrelay.ops.dead_letters.reading import StoredDeadLetter, find_dead_letters
from segrelay.ops.kept import Filter
from segrelay.ops.outcomes.reading import rows_about
from segrelay.ops.state.partitions import Stream, all_partitions
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
    WaitingEntry,
    find_streams,
    is_orphan,
    read_all_entries,
    times,
)
from segrelay.ops.status.standing import (
    DestinationStanding,
    JobStanding,
    Standing,
    TriggerStanding,
    read_standing,
)
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.events.payloads import load, opened
from segrelay.producer.events.values import profile_key
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord
from segrelay.worker.batch.partition import Intent
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.ledger import lapses_at_ms
from segrelay.worker.contract.processes import WebhookRequest, read_requests
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import job_of_lane
from segrelay.worker.errors import PayloadRefused, UsageWrong


@dataclass(slots=True)
class Obstacles:
    """The reasons why deliveries of a person wait: the standing, and intents in doubt."""

    standing: Standing
    intents: Mapping[PartitionKeys, Sequence[Intent]]

    def is_orphan(self, entry: WaitingEntry) -> bool:
        """Say whether the trigger of an entry is gone."""
        return is_orphan(self.standing.settings, entry.stream.partition, entry.stream.trigger)

    def of(self, entry: WaitingEntry) -> Iterator[str]:
        """Yield the reasons why an entry waits; none = it is due."""
        partition, trigger = entry.stream.partition, entry.stream.trigger
        job = job_of_lane(entry.stream.lane)
        if self.is_orphan(entry):
            yield "the configuration has no such trigger for this destination"
        if self.standing.is_closed(partition.destination, trigger):
            yield from _stopped(self.standing.destinations.get(partition.destination))
        yield from _stopped(self.standing.triggers.get(trigger))
        yield from _stopped(self.standing.jobs.get(job))
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
            for row in intent.deliveries
            if header and row.digest == header.digest and row.position != own
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


def _stopped(one: DestinationStanding | TriggerStanding | JobStanding | None) -> Iterator[str]:
    found = one.condition if one else None
    if found and found.stops and found.state not in _TOLD_OF_THE_ENTRY:
        by = f"by {found.by}" if found.by else ""
        since = f"since {shown_ms(found.since_ms, 'seconds')}" if found.since_ms else ""
        who = f" ({' '.join(filter(None, (by, since)))})" if by or since else ""
        reason = found.message or found.reason or "by a person"
        yield f"the {found.kind} is {found.state}: {reason}{who}"


def _intents_in_doubt(client: Redis, partition: PartitionKeys) -> Iterator[Intent]:
    ends: Any = client.hgetall(partition.open)
    texts: Any = client.hmget(partition.intents, list(ends)) if ends else []
    for (name, end), text in zip(ends.items(), texts, strict=True):
        if text is not None:
            yield Intent.loads(name.decode(), text, int(end))


MOST_ENTRIES: Final = 100_000
"""The largest number of waiting entries that are read: more would take minutes."""
MOST_RECORDS: Final = 1_000
"""The number of quarantine records that are read, from the newest on."""

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
        written_ms: The last write of each record that lapses, by destination.
        obstacles: Why it waits; there if anything does.
        requests: To the receiver, that brought events of this person lately.
        is_whole: All that waits was looked at.
    """

    person: KnownPerson
    ledger: dict[str, list[LedgerLine]] = field(default_factory=dict)
    waiting: list[WaitingEntry] = field(default_factory=list)
    dead_letters: list[StoredDeadLetter] = field(default_factory=list)
    past: list[Moment] = field(default_factory=list)
    written_ms: dict[str, int] = field(default_factory=dict)
    quarantined: list[QuarantineRecord] = field(default_factory=list)
    obstacles: Obstacles | None = None
    requests: list[WebhookRequest] = field(default_factory=list)
    is_whole: bool = True

    @property
    def is_nothing(self) -> bool:
        """Say whether nothing is known of the profile."""
        delivered = any(self.ledger.values())
        stored = self.waiting or self.dead_letters or self.past or self.quarantined
        return not (delivered or stored or self.requests)


def explain(
    client: Redis, settings: Settings, text: str, *, by_fields: bool = True
) -> KnownProfile:
    """Find a profile by what was typed, and return all that is known of it."""
    known = find_profile(client, settings, text, by_fields=by_fields)
    digest, identity = known.person.digest, settings.delivery.identity
    records, wanted = Quarantine(client).records(), text if by_fields else ""
    known.quarantined = list(quarantined(client, records, identity, digest, wanted))
    known.requests = [one for one in read_requests(client) if digest in one.people]
    return known


def find_profile(
    client: Redis,
    settings: Settings,
    text: str,
    most: int = MOST_ENTRIES,
    *,
    by_fields: bool = True,
) -> KnownProfile:
    """Find a profile by what was typed, and return what is known by its digest.

    The text is a value of the identity field; else a digest as `verify` prints it; else a value of
    any field of what waits or lies dead: `value` or `field:value`.

    Args:
        client: Redis.
        settings: The configuration.
        text: What was typed.
        most: The number of waiting entries that are read; by fields, also of dead letters.
        by_fields: False = by the identity or a digest only: whoever may try other fields learns
            them.

    Raises:
        UsageWrong: It can be nobody's identity, and nobody was found who has it in a field.
    """
    try:
        named = person_named(text, settings)
        known = explain_person(client, settings, named, most)
    except UsageWrong:
        known = None
    if known is None or known.is_nothing:
        other = _with_digest(client, settings, text)
        if other is None and by_fields:
            other = _with_field(client, settings, text, most)
        if other is not None:
            known = explain_person(client, settings, other, most)
    if known is None:
        fields = "and nobody has it in a field" if by_fields else "and no other field is searched"
        raise UsageWrong(f"This can't be anybody's {settings.delivery.identity}, {fields}.")
    return known


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
        standing: As it was read already; None = it is read if something waits.
    """
    known = KnownProfile(person)
    names = Names(client)
    everywhere = all_partitions(client, settings)
    partitions = [each for each in everywhere if each.number == person.partition]
    digest_hex = person.digest.hex()
    for partition in partitions:
        (record,) = read_records(client, partition, [person.digest])
        known.ledger[partition.destination] = list(names.lines(record))
        written_ms = _written_ms(client, settings, partition, person)
        if written_ms:
            known.written_ms[partition.destination] = written_ms
        known.past += _past(client, partition, digest_hex)
    streams = _streams_of(standing, partitions) if standing else find_streams(client, partitions)
    known.waiting, known.is_whole = _waiting(client, streams, person.digest, most)
    if known.waiting:
        known.obstacles = Obstacles(
            standing or read_standing(client, settings),
            {partition: list(_intents_in_doubt(client, partition)) for partition in partitions},
        )
    wanted = Filter(digests=frozenset({digest_hex}))
    found = find_dead_letters(client, partitions, wanted)
    known.dead_letters = list(islice(found, _MOST_DEAD_LETTERS))
    return known


def _streams_of(standing: Standing, partitions: Sequence[PartitionKeys]) -> list[Stream]:
    numbers, wanted = {each.number for each in partitions}, frozenset(partitions)
    # Comparing numbers first spares hashing the partitions of thousands of streams.
    return [
        each
        for each in standing.streams
        if each.partition.number in numbers and each.partition in wanted
    ]


def _written_ms(
    client: Redis, settings: Settings, partition: PartitionKeys, person: KnownPerson
) -> int:
    """Return when a record was last written, from the end of its retention.

    0 = nobody can tell: there is none, or its person is in an audience and it never lapses.
    """
    text: Any = client.get(partition.ledger(person.digest))
    ends_ms = lapses_at_ms(text or b"")
    kept_ms = round(1000 * settings.delivery.ledger_retention_seconds)
    return ends_ms - kept_ms if ends_ms else 0


def _past(client: Redis, partition: PartitionKeys, digest: str) -> Iterator[Moment]:
    """Yield what the outcome log says about a person: ends and tries."""
    for row in rows_about(client, partition, [digest]):
        if row.counts >= 0:  # a death that is taken back is told by what became of it
            where = (partition.destination, row.trigger, row.audience, row.direction)
            answered = f"answered {row.status}" if row.status else ""
            detail = row.message or answered
            yield Moment(row.time_ms, row.outcome, *where, row.event_time_us, detail)


def _waiting(
    client: Redis, streams: Iterable[Stream], digest: bytes, most: int
) -> tuple[list[WaitingEntry], bool]:
    """Return the deliveries that wait of a person, and whether all entries were read."""
    found: list[WaitingEntry] = []
    for number, entry in enumerate(read_all_entries(client, streams)):
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
    for partition in all_partitions(client, settings):
        (record,) = read_records(client, partition, [digest])
        if record.items:
            return KnownPerson(digest, partition.number)
    wanted = Filter(digests=frozenset([digest.hex()]))
    partitions = all_partitions(client, settings)
    dead_letter = next(find_dead_letters(client, partitions, wanted), None)
    return KnownPerson(digest, dead_letter["partition"]) if dead_letter else None


def _with_field(client: Redis, settings: Settings, text: str, most: int) -> KnownPerson | None:
    """Find a profile by any field, in waiting deliveries and dead letters."""
    partitions = all_partitions(client, settings)
    for entry in islice(read_all_entries(client, find_streams(client, partitions)), most):
        if entry.header and _has(profile_of(entry), text):
            return KnownPerson(entry.header.digest, entry.stream.partition.number)
    for dead_letter in islice(find_dead_letters(client, partitions), most):
        if dead_letter["header"] and _has(dead_letter["profile"], text):
            return KnownPerson(bytes.fromhex(dead_letter["header"][1]), dead_letter["partition"])
    return None


def profile_of(entry: WaitingEntry) -> Any:
    """Return the profile of a waiting delivery; None if it can't be read."""
    try:
        return orjson.loads(decode_profile(entry.profile))
    except (PayloadRefused, orjson.JSONDecodeError):
        return None


def _has(profile: Any, text: str) -> bool:
    if not isinstance(profile, dict):
        return False
    wanted = text.strip().casefold()
    for name, value in profile.items():
        if isinstance(value, str | int) and not isinstance(value, bool):
            found = str(value).strip().casefold()
            if wanted in (found, f"{name.casefold()}:{found}"):
                return True
    return False


def quarantined(
    client: Redis,
    records: Iterable[QuarantineRecord],
    identity: str,
    digest: bytes,
    text: str = "",
) -> Iterator[QuarantineRecord]:
    """Yield the newest records of the quarantine about a person, and those that hold the text."""
    quarantine = Quarantine(client)
    wanted = text.strip().casefold().encode()
    newest = sorted(records, key=lambda record: -record.last_seen_ms)
    for record in newest[:MOST_RECORDS]:
        content = quarantine.text(record.id) or b""
        if (wanted and wanted in content.lower()) or _digest_in(content, identity) == digest:
            yield record


def _digest_in(content: bytes, identity: str) -> bytes | None:
    """Return the digest of the person in a payload; None = it has none, or can't be read."""
    try:
        return digest_of(profile_key(opened(load(content))[0], identity))
    except PayloadRefused:
        return None
