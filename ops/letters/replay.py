"""Replaying letters into the backfill lane, and discarding them; atomic for each letter.

A replay keeps the event's own time, so that the ledger refuses it if something newer was
delivered meanwhile. A crash in between neither loses nor doubles a letter: one script takes it
out and puts it back.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import orjson
from redis import Redis

from ops.letters.reading import Filter, StoredLetter, find_letters, is_exhausted
from ops.state import scripts
from producer.doorbell import Doorbell
from producer.events.payloads import SEGMENT_EVENTS
from producer.publishing.audiences import AudienceBook
from worker.checks.rehearsal import Candidate, Rehearsed, rehearse
from worker.contract.events import Header, decode_header, encode_header, pack_profile
from worker.contract.keys import PartitionKeys, split_stream_name, stream_name
from worker.contract.redis.scripts import ScriptCall, Value
from worker.contract.settings import Settings
from worker.contract.triggers.meaning import Meaning
from worker.contract.words import BACKFILL, Death, Refusal, job_of_lane
from worker.destinations.api import NotSendable
from worker.errors import FormatUnknown, PartitionsChange, PayloadRefused

STEP: Final = 200
"""Letters of one step: few, because a letter may hold a profile of a megabyte."""

_STEP_BYTES: Final = 4_000_000


@dataclass(slots=True)
class ReplayPlan:
    """The letters that a replay would take and leave out."""

    ids: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def obstacle(
    letter: StoredLetter,
    settings: Settings,
    oldest_us: int,
    meanings: Mapping[str, Meaning],
    *,
    named: bool = False,
) -> str:
    """Return the reason why a letter can't be replayed; "" if it can."""
    trigger = settings.triggers.get(letter["trigger"])
    if trigger is None or trigger.destination != letter["destination"]:
        return "orphaned"
    header = letter_header(letter)
    if header and not meanings[letter["trigger"]].wants(header):
        return "unwanted"
    if header is None and not (named and entry_of(letter)):
        return "unreadable"
    if is_exhausted(letter) and not named:
        return "exhausted"
    time_us = header.time_us if header else 1_000 * letter["first_at_ms"]
    return Refusal.OLDER_THAN_LEDGER.value if time_us < oldest_us else ""


def plan_replay(
    letters: Iterable[StoredLetter],
    settings: Settings,
    oldest_us: int,
    meanings: Mapping[str, Meaning],
    *,
    named: bool = False,
) -> ReplayPlan:
    """Choose the letters that are replayed, the oldest death first.

    Those of events before `oldest_us`, the beginning of what the ledger remembers, are left out,
    and so are exhausted ones, unless the letters were named by their ids.
    """
    plan = ReplayPlan()
    for letter in letters:
        reason = obstacle(letter, settings, oldest_us, meanings, named=named)
        if reason:
            plan.left_out[reason] += 1
        else:
            plan.ids.append(letter["id"])
    plan.ids.reverse()
    return plan


def replay(
    client: Redis,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    doorbell: Doorbell,
    audiences: AudienceBook,
) -> Iterator[int]:
    """Replay letters step by step; yields how many each step took.

    An event without the id of its audience gets it, if it is known by now.

    Raises:
        RedisUnavailable: The steps before were taken.
    """
    for taken, rings in _steps(client, places, ids, audiences):
        for place in rings:
            doorbell.ring(place.destination, place.partition, queue=BACKFILL)
        yield taken


def discard(client: Redis, places: Sequence[PartitionKeys], ids: Sequence[str]) -> Iterator[int]:
    """Discard letters for good, step by step; yields how many each step took.

    Raises:
        RedisUnavailable: The steps before were taken.
    """
    for taken, _ in _steps(client, places, ids, None):
        yield taken


def _steps(
    client: Redis,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    audiences: AudienceBook | None,
) -> Iterator[tuple[int, list[PartitionKeys]]]:
    """Replay letters, or discard them where no audiences are given."""
    remaining = iter(ids)
    while part := list(islice(remaining, STEP)):
        groups: defaultdict[tuple[str, int], list[StoredLetter]] = defaultdict(list)
        for letter in find_letters(client, places, Filter(frozenset(part))):
            known = identified(letter, audiences) if audiences else letter
            groups[letter["destination"], letter["partition"]].append(known)
        for place, letters in groups.items():
            keys = PartitionKeys(*place)
            for chunk in _chunks(letters):
                call = _call(keys, chunk, discards=audiences is None)
                ((taken, ring),) = scripts.run(client, "leave", [call])
                if taken < 0:
                    raise PartitionsChange
                yield taken, [keys] if ring else []


def identified(letter: StoredLetter, audiences: AudienceBook) -> StoredLetter:
    """Return a letter whose event has the id of its audience, if one is known."""
    header = letter_header(letter)
    entries = letter["profile"].get(SEGMENT_EVENTS) if header else None
    if header is None or not (isinstance(entries, list) and isinstance(entries[0], dict)):
        return letter
    return {**letter, "profile": audiences.identified(letter["profile"], header.audience)}


def _chunks(letters: Sequence[StoredLetter]) -> Iterator[list[StoredLetter]]:
    """Yield the letters in chunks that are each small enough for one script."""
    chunk: list[StoredLetter] = []
    size = 0
    for letter in letters:
        chunk.append(letter)
        size += len(orjson.dumps(letter))
        if size > _STEP_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _call(keys: PartitionKeys, letters: Sequence[StoredLetter], *, discards: bool) -> ScriptCall:
    targets = [] if discards else list(dict.fromkeys(map(_target, letters)))
    args: list[Value] = [len(targets), *targets]
    for letter in letters:
        args += (
            letter["id"],
            letter["cause"],
            letter["stream"],
            letter["reason"],
            0 if discards else targets.index(_target(letter)) + 1,
            *((b"", b"") if discards else _entry(letter)),
        )
    fixed = (keys.counts, keys.streams, keys.bell, keys.letters, keys.lettertimes, keys.causes)
    return ScriptCall((*fixed, keys.lease, *map(keys.stream, targets)), args)


def _target(letter: StoredLetter) -> str:
    """Return the name of the stream for a replayed letter: its job's, or the backfill lane's."""
    lane, trigger = split_stream_name(letter["stream"])
    return stream_name(lane if job_of_lane(lane) else BACKFILL, trigger)


def _entry(letter: StoredLetter) -> tuple[bytes, bytes]:
    header = letter_header(letter)
    if header is None:
        entry = entry_of(letter)
        assert entry is not None
        return entry
    again = header._replace(replays=header.replays + 1)
    return encode_header(again), pack_profile(orjson.dumps(letter["profile"]))


def entry_of(letter: StoredLetter) -> tuple[bytes, bytes] | None:
    """Return header and profile as they were in the stream; None if the letter lacks them."""
    match letter.get("entry"):
        case [str(header), str(profile)]:
            try:
                return base64.b64decode(header, validate=True), base64.b64decode(
                    profile, validate=True
                )
            except binascii.Error:
                return None
        case _:
            return None


def letter_header(letter: StoredLetter) -> Header | None:
    """Return the header of a letter; None if its entry could not be read."""
    profile: Any = letter["profile"]
    if not isinstance(profile, dict) or not letter["header"]:
        return None
    try:
        header = decode_header(orjson.dumps(letter["header"]))
    except (PayloadRefused, FormatUnknown):
        return None
    return header if header.digest and header.time_us else None


_READ_AT_ONCE: Final = 100
"""Letters read in one call: few, because a letter may hold a profile of a megabyte."""
_UNREADABLE: Final = NotSendable(
    Death.UNREADABLE, "The entry can't be read by this version of segrelay."
)


def candidate_of(letter: StoredLetter) -> Candidate | None:
    """Return the event of a letter; None if this version can't read its entry."""
    if "entry" in letter or not letter["header"]:
        return None
    header = decode_header(orjson.dumps(letter["header"]))
    return Candidate(letter["id"], letter["trigger"], header, orjson.dumps(letter["profile"]))


def rehearse_letters(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    audiences: AudienceBook,
    *,
    now_ms: int,
) -> Iterator[Rehearsed]:
    """Rehearse letters that could be replayed."""
    for first in range(0, len(ids), _READ_AT_ONCE):
        part = Filter(frozenset(ids[first : first + _READ_AT_ONCE]))
        letters = {
            one["id"]: candidate_of(identified(one, audiences))
            for one in find_letters(client, places, part)
        }
        readable = [candidate for candidate in letters.values() if candidate]
        yield from rehearse(readable, settings, now_us=1000 * now_ms)
        for letter_id, candidate in letters.items():
            if candidate is None:
                yield Rehearsed(letter_id, None, _UNREADABLE)
