"""Waiting deliveries: finding, reading and counting them, and taking them back.

Also delayed work: triggers that wait in a partition, and deliveries that wait for another try; and
the states of jobs in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from segrelay.ops.state import opened
from segrelay.ops.state.partitions import Stream, ask_each, read_stream, snapshots
from segrelay.producer.backfill.jobs import Job
from segrelay.worker.contract.events import UNREADABLE, Header, decode_header, read_entry
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import End, log_bytes, pack
from segrelay.worker.contract.records import read_row
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Pause
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.core.backoff import Backoff, Wait
from segrelay.worker.errors import (
    FormatUnknown,
    PayloadRefused,
)

STEP: Final = 1_000
"""Entries of one step: as many as a script may handle without holding Redis up."""

_READ_AT_ONCE: Final = 200


class WaitingEntry(NamedTuple):
    """A waiting delivery, as an entry of a stream.

    Attributes:
        header: The header; None where it can't be read.
        profile: The packed profile, see `events.decode_profile`.
    """

    stream: Stream
    entry_id: str
    header: Header | None
    profile: bytes

    @property
    def since_ms(self) -> int:
        """Return the time at which the entry was added to its stream, by Redis' clock."""
        return int(self.entry_id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter for waiting deliveries, dead letters and the quarantine; an empty one matches all.

    Args:
        job: The name of the job that published them; "" = any.
        ids: The ids of dead letters or quarantined records; none = any.
        containing: The text that stands in the message or the answer, as they are shown masked;
            only dead letters are chosen by it. "" = any.
        digests: The digests (hex) of the profiles; none = any.
        since_ms: The earliest time of death, or of the last arrival in the quarantine.
        until_ms: The end of these times; 0 = no limit.
        older_than_ledger: True if a replay takes also what is older than the ledger remembers.
    """

    job: str = ""
    trigger: str = ""
    audience: str = ""
    destination: str = ""
    ids: frozenset[str] = frozenset()
    causes: frozenset[str] = frozenset()
    reason: str = ""
    containing: str = ""
    digests: frozenset[str] = frozenset()
    since_ms: int = 0
    until_ms: int = 0
    older_than_ledger: bool = False

    @classmethod
    def of_id(cls, one_id: str) -> Filter:
        """Return the filter that matches one dead letter or quarantined record."""
        return cls(ids=frozenset({one_id}))

    def holds(self, stream: Stream) -> bool:
        """Say whether a stream may hold entries that the filter matches."""
        return (
            (not self.job or stream.lane == lane_of_job(self.job))
            and self.trigger in ("", stream.trigger)
            and self.destination in ("", stream.partition.destination)
        )


EVERYTHING: Final = Filter()


def find_streams(
    client: Redis, partitions: Sequence[PartitionKeys], choice: Filter = EVERYTHING
) -> list[Stream]:
    """Return the streams that may hold entries that a filter matches."""
    found = (stream for one in snapshots(client, partitions) for stream in one.waiting)
    return [stream for stream in found if choice.holds(stream)]


def read_entries(client: Redis, stream: Stream, last: str = "+") -> Iterator[WaitingEntry]:
    """Yield the entries of a stream, the oldest first.

    Args:
        client: Redis.
        stream: The stream.
        last: The id of the last entry that is wanted; "+" = also those that are added meanwhile.
    """
    key = stream.partition.stream(stream.name)
    for entry_id, fields in read_stream(client, key, "-", last, _READ_AT_ONCE):
        text, _, profile = read_entry(fields)
        yield WaitingEntry(stream, entry_id.decode(), _header(text), profile)


def _header(text: bytes) -> Header | None:
    try:
        return decode_header(text)
    except (PayloadRefused, FormatUnknown):
        return None


def measure(client: Redis, streams: Sequence[Stream]) -> list[Stream]:
    """Return the streams with their lengths and last ids, each as of one moment.

    What is taken back of them then is only what had come by that moment.
    """
    pipe = client.pipeline(transaction=False)
    for stream in streams:
        pipe.xinfo_stream(stream.partition.stream(stream.name))
    answers = pipe.execute(raise_on_error=False) if streams else []
    return [
        stream._replace(length=answer["length"], last_id=answer["last-generated-id"].decode())
        for stream, answer in zip(streams, answers, strict=True)
        if not is_gone(answer)
    ]


def is_gone(answer: Any) -> bool:
    """Say whether an answer tells that a stream was removed meanwhile.

    Raises:
        Exception: The answer is another error.
    """
    if isinstance(answer, Exception) and "no such key" not in str(answer):
        raise answer
    return isinstance(answer, Exception)


def count_chosen(client: Redis, streams: Sequence[Stream], choice: Filter) -> int:
    """Count the waiting deliveries that a filter matches."""
    if not choice.audience:
        return sum(stream.length for stream in streams)
    return sum(len(part) for stream in streams for part in _parts(client, stream, choice))


def take_back(
    client: Redis, settings: Settings, streams: Sequence[Stream], choice: Filter
) -> Iterator[int]:
    """Take back the entries that a filter matches; yield the number discarded in each step.

    What a drain has read already it may still send; what it has settled by then is not taken, and
    neither is what came after the streams were measured.

    Raises:
        RedisUnavailable: The steps before were taken.
    """
    most_bytes = log_bytes(settings)
    for stream in streams:
        for part in _parts(client, stream, choice):
            yield take_back_entries(client, stream, part, most_bytes)


def take_back_entries(
    client: Redis, stream: Stream, entries: Sequence[WaitingEntry], most_bytes: int
) -> int:
    """Take back entries of a stream; return how many were there."""
    k = stream.partition
    ends = [End(entry.header or UNREADABLE, stream.name, "discarded") for entry in entries]
    call = script_call(
        opened.source("take_back"),
        k,
        waiting=k.stream(stream.name),
        name=stream.name,
        ids=[entry.entry_id for entry in entries],
        ends=[pack(ends), most_bytes],
    )
    (taken,) = opened.run(client, "take_back", [call])
    return int(taken)


def _parts(client: Redis, stream: Stream, choice: Filter) -> Iterator[list[WaitingEntry]]:
    """Yield the entries of a stream that a filter matches, up to `STEP` at a time."""
    chosen = (
        entry
        for entry in read_entries(client, stream, stream.last_id or "+")
        if not choice.audience or (entry.header and entry.header.audience == choice.audience)
    )
    while part := list(islice(chosen, STEP)):
        yield part


@dataclass(frozen=True, slots=True)
class Delays:
    """The delayed triggers and deliveries of one partition.

    Args:
        backoffs: The backoffs by `lane|trigger|id`.
    """

    waits: Mapping[str, Wait] = field(default_factory=dict)
    backoffs: Mapping[str, Backoff] = field(default_factory=dict)

    def without_former(self, editions: Mapping[str, str]) -> Delays:
        """Return the delays without those that older editions of triggers have caused.

        Args:
            editions: The newest editions, by trigger.
        """

        def holds(trigger: str, one: Wait | Backoff) -> bool:
            return not one.edition or editions.get(trigger, one.edition) == one.edition

        return Delays(
            {name: one for name, one in self.waits.items() if holds(name, one)},
            {at: one for at, one in self.backoffs.items() if holds(at.split("|")[1], one)},
        )


def read_delays(client: Redis, partitions: Sequence[PartitionKeys]) -> list[Delays]:
    """Return the delayed work of each partition."""
    answers = ask_each(
        client,
        partitions,
        lambda pipe, partition: pipe.hgetall(partition.retry),
        lambda pipe, partition: pipe.hgetall(partition.aside),
    )
    return [
        Delays(
            {name.decode(): read_row(Wait, text) for name, text in waits.items()},
            {name.decode(): read_row(Backoff, text) for name, text in backoffs.items()},
        )
        for waits, backoffs in zip(answers[::2], answers[1::2], strict=True)
    ]


def times(count: int) -> str:
    """Return a count as a person reads it: "once" or "3 times"."""
    return "once" if count == 1 else f"{count:,} times"


AT_CANARY: Final = "at its canary"
INTERRUPTED: Final = "interrupted"


def state_of(job: Job | None, *, waiting: int, pause: Pause | None) -> str:
    """Return the state of a job in a word or two, the same in every output.

    Without a job it is only a lane, into which a program has published.
    """
    phase = job.phase if job else "read"
    match phase:
        case "reading":
            return "reading" if job and job.claimed else INTERRUPTED
        case "read" | "canary" if pause and waiting:
            return "paused"
        case "read":
            return "delivering" if waiting else "done"
        case "canary":
            return "canary under way" if waiting else AT_CANARY
        case _:
            return phase


def reason_of_state(name: str, job: Job | None, state: str) -> str:
    """Return the reason for a job's state, or the command that ends it; "" = the state says all."""
    match state:
        case "failed":
            return job.problem if job else ""
        case "interrupted":
            why = (job.problem if job else "") or "nobody reads it."
            return f"{why} `segrelay backfill resume {name}` goes on, or abort it"
        case "at its canary":
            return f"`segrelay backfill resume {name}` delivers the rest, or abort it"
        case _:
            return ""
