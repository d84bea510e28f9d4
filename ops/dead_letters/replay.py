"""Dead letters as a store of kept things: shown, replayed into the backfill lane, and discarded.

A replay keeps the event's own time, so that the ledger refuses it if something newer was
delivered meanwhile. A crash in between neither loses nor doubles a letter: one script takes it
out and puts it back.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Final

import orjson

from segrelay.ops.dead_letters.reading import StoredDeadLetter, find_dead_letters, is_exhausted
from segrelay.ops.kept import Fate, Filter, Work
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.publishing.published import Entries, Published, entries_of
from segrelay.producer.wakeups import CeleryWaker, Waker
from segrelay.worker.adapters.redis.shared_keys import read_scopes
from segrelay.worker.checks.preview import Candidate, Previewed, preview
from segrelay.worker.contract.events import Header, decode_header, encode_header, pack_profile
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name, stream_name
from segrelay.worker.contract.masking import hidden, masked_profile
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import BACKFILL, Death, Refusal, job_of_lane
from segrelay.worker.core.messages import normalise_message, place_in
from segrelay.worker.destinations.api import NotSendable
from segrelay.worker.errors import FormatUnknown, PartitionsChange, PayloadRefused

STEP: Final = 200
"""Letters of one step: few, because a letter may hold a profile of a megabyte."""

FATES: Final = ("sent", "skipped", "dead")
_STEP_BYTES: Final = 4_000_000
_READ_AT_ONCE: Final = 100
"""Letters read in one call: few, because a letter may hold a profile of a megabyte."""
_UNREADABLE: Final = NotSendable(
    Death.UNREADABLE, "The entry can't be read by this version of segrelay."
)


@dataclass(slots=True)
class DeadLetters:
    """The dead letters in Redis, as a store of kept things.

    Attributes:
        published: The result of its replays.
    """

    client: Redis
    settings: Settings
    published: Published = field(default_factory=Published, init=False)
    command: ClassVar[str] = "dlq"
    nouns: ClassVar[tuple[str, str]] = ("letter", "letters")

    def find(self, wanted: Filter) -> Iterator[StoredDeadLetter]:
        """Yield the letters that match, the newest death first."""
        return find_dead_letters(self.client, self._places(wanted), wanted)

    def document(self, one: StoredDeadLetter, *, reveal: bool) -> dict[str, Any]:
        """Return a letter as it is printed, with the place that failed and its times."""
        place = failed_at(self.settings, one["trigger"], one["message"])
        return (
            {"place": place}
            | shown(one, reveal=reveal)
            | {
                "time": shown_us(one["time_us"]),
                "first_at": shown_ms(one["first_at_ms"]),
                "last_at": shown_ms(one["last_at_ms"]),
                "exhausted": is_exhausted(one),
            }
        )

    def replay(self, wanted: Filter) -> Work:
        """Return the replay of the letters that match, the oldest death first.

        Letters of events before what the ledger remembers are left out, and so are exhausted ones,
        unless the letters were named by their ids.
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
        audiences = AudienceStore(self.client, told=self.settings.told_ids, learns=False)
        waker = CeleryWaker(self.settings)
        places = self._places(wanted)
        return Work(
            len(ids),
            lambda: self._replay(places, ids, waker, audiences),
            left_out,
            FATES,
            lambda: preview_dead_letters(
                self.client, self.settings, places, ids, audiences, now_ms=at_ms
            ),
        )

    def _replay(
        self,
        places: Sequence[PartitionKeys],
        ids: Sequence[str],
        waker: Waker,
        audiences: AudienceStore,
    ) -> Iterator[int]:
        """Replay letters step by step; yields how many each step took.

        An event without the id of its audience gets it, if it is known by now.

        Raises:
            RedisUnavailable: The steps before were taken.
        """
        for taken, wakeups, entries in _steps(self.client, places, ids, audiences):
            self.published += Published(accepted=taken, entries=entries)
            for place in wakeups:
                waker.wake(place.destination, place.partition, queue=BACKFILL)
            yield taken

    def discard(self, wanted: Filter) -> Work:
        """Return the work of discarding the letters that match now."""
        ids = [one["id"] for one in self.find(wanted)]
        places = self._places(wanted)
        return Work(len(ids), lambda: discard(self.client, places, ids))

    def _places(self, wanted: Filter) -> list[PartitionKeys]:
        places = all_partitions(self.client, self.settings)
        return [p for p in places if not wanted.partitions or p.partition in wanted.partitions]


def failed_at(settings: Settings, trigger: str, message: str) -> str:
    """Return the line of the template that failed, or the template if the line is not known."""
    known = settings.triggers.get(trigger)
    return place_in(message) or (known.template if known else "")


def shown(dead_letter: StoredDeadLetter, *, reveal: bool) -> dict[str, Any]:
    """Return the fields of a letter with its body as JSON, and masked unless revealed."""
    body = json_or_text(dead_letter["body"])
    public = {key: value for key, value in dead_letter.items() if key not in {"header", "entry"}}
    if reveal:
        return public | {"body": body}
    return public | {
        "message": normalise_message(dead_letter["message"]),
        "body": hidden(body) if body else body,
        "answer": normalise_message(dead_letter["answer"]),
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
    """Return the reason why a letter can't be replayed; "" if it can."""
    trigger = settings.triggers.get(dead_letter["trigger"])
    if trigger is None or trigger.destination != dead_letter["destination"]:
        return "orphaned"
    header = dead_letter_header(dead_letter)
    if header and not scopes[dead_letter["trigger"]].wants(header):
        return "unwanted"
    if header is None and not (named and entry_of(dead_letter)):
        return "unreadable"
    if is_exhausted(dead_letter) and not named:
        return "exhausted"
    time_us = header.time_us if header else 1_000 * dead_letter["first_at_ms"]
    return Refusal.OLDER_THAN_LEDGER.value if time_us < oldest_us else ""


def discard(client: Redis, places: Sequence[PartitionKeys], ids: Sequence[str]) -> Iterator[int]:
    """Discard letters for good, step by step; yields how many each step took.

    Raises:
        RedisUnavailable: The steps before were taken.
    """
    for taken, _, _ in _steps(client, places, ids, None):
        yield taken


def _steps(
    client: Redis,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    audiences: AudienceStore | None,
) -> Iterator[tuple[int, list[PartitionKeys], dict[str, Entries]]]:
    """Replay letters, or discard them where no audiences are given."""
    remaining = iter(ids)
    while part := list(islice(remaining, STEP)):
        known_places = {(place.destination, place.partition): place for place in places}
        groups: defaultdict[PartitionKeys, list[StoredDeadLetter]] = defaultdict(list)
        for dead_letter in find_dead_letters(client, places, Filter(ids=frozenset(part))):
            known = identified(dead_letter, audiences) if audiences else dead_letter
            place = known_places[dead_letter["destination"], dead_letter["partition"]]
            groups[place].append(known)
        for keys, dead_letters in groups.items():
            for chunk in _chunks(dead_letters):
                call = _call(keys, chunk, discards=audiences is None)
                ((taken, wake, *added),) = opened.run(client, "leave", [call])
                if taken < 0:
                    raise PartitionsChange
                names = map(str, call.keys[_FIXED_KEYS:])
                yield taken, [keys] if wake else [], entries_of(names, added)


def identified(dead_letter: StoredDeadLetter, audiences: AudienceStore) -> StoredDeadLetter:
    """Return a letter whose event has the id of its audience, if one is known."""
    header = dead_letter_header(dead_letter)
    entries = dead_letter["profile"].get(SEGMENT_EVENTS) if header else None
    if header is None or not (isinstance(entries, list) and isinstance(entries[0], dict)):
        return dead_letter
    return {**dead_letter, "profile": audiences.identified(dead_letter["profile"], header.audience)}


def _chunks(dead_letters: Sequence[StoredDeadLetter]) -> Iterator[list[StoredDeadLetter]]:
    """Yield the letters in chunks that are each small enough for one script."""
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
    keys: PartitionKeys, dead_letters: Sequence[StoredDeadLetter], *, discards: bool
) -> ScriptCall:
    targets = [] if discards else list(dict.fromkeys(map(_target, dead_letters)))
    args: list[Value] = [len(targets), *targets]
    for dead_letter in dead_letters:
        args += (
            dead_letter["id"],
            dead_letter["cause"],
            dead_letter["stream"],
            dead_letter["reason"],
            0 if discards else targets.index(_target(dead_letter)) + 1,
            *((b"", b"") if discards else _entry(dead_letter)),
        )
    fixed = (
        keys.counts,
        keys.streams,
        keys.wakeup,
        keys.dead_letters,
        keys.lettertimes,
        keys.causes,
    )
    return ScriptCall((*fixed, keys.lease, *map(keys.stream, targets)), args)


_FIXED_KEYS: Final = 7
"""The keys of the script before those of the streams."""


def _target(dead_letter: StoredDeadLetter) -> str:
    """Return the name of the stream for a replayed letter: its job's, or the backfill lane's."""
    lane, trigger = split_stream_name(dead_letter["stream"])
    return stream_name(lane if job_of_lane(lane) else BACKFILL, trigger)


def _entry(dead_letter: StoredDeadLetter) -> tuple[bytes, bytes]:
    header = dead_letter_header(dead_letter)
    if header is None:
        entry = entry_of(dead_letter)
        assert entry is not None
        return entry
    again = header._replace(replays=header.replays + 1)
    return encode_header(again), pack_profile(orjson.dumps(dead_letter["profile"]))


def entry_of(dead_letter: StoredDeadLetter) -> tuple[bytes, bytes] | None:
    """Return header and profile as they were in the stream; None if the letter lacks them."""
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
    """Return the header of a letter; None if its entry could not be read."""
    profile: Any = dead_letter["profile"]
    if not isinstance(profile, dict) or not dead_letter["header"]:
        return None
    try:
        header = decode_header(orjson.dumps(dead_letter["header"]))
    except (PayloadRefused, FormatUnknown):
        return None
    return header if header.digest and header.time_us else None


def candidate_of(dead_letter: StoredDeadLetter) -> Candidate | None:
    """Return the event of a letter; None if this version can't read its entry."""
    if "entry" in dead_letter or not dead_letter["header"]:
        return None
    header = decode_header(orjson.dumps(dead_letter["header"]))
    return Candidate(
        dead_letter["id"], dead_letter["trigger"], header, orjson.dumps(dead_letter["profile"])
    )


def preview_dead_letters(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    audiences: AudienceStore,
    *,
    now_ms: int,
) -> Iterator[Fate]:
    """Rehearse letters that could be replayed."""
    for first in range(0, len(ids), _READ_AT_ONCE):
        part = Filter(ids=frozenset(ids[first : first + _READ_AT_ONCE]))
        dead_letters = {
            one["id"]: candidate_of(identified(one, audiences))
            for one in find_dead_letters(client, places, part)
        }
        readable = [candidate for candidate in dead_letters.values() if candidate]
        rehearsed = list(preview(readable, settings, now_us=1000 * now_ms))
        for dead_letter_id, candidate in dead_letters.items():
            if candidate is None:
                rehearsed.append(Previewed(dead_letter_id, None, _UNREADABLE))
        yield from (Fate(one.name, one.fate, one.reason, one.safe_message) for one in rehearsed)
