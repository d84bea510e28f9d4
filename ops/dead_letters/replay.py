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

from segrelay.ops.dead_letters.reading import (
    Filter,
    StoredDeadLetter,
    find_dead_letters,
    is_exhausted,
)
from segrelay.ops.state import opened
from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.wakeups import Waker
from segrelay.worker.checks.preview import Candidate, Previewed, preview
from segrelay.worker.contract.events import Header, decode_header, encode_header, pack_profile
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name, stream_name
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import BACKFILL, Death, Refusal, job_of_lane
from segrelay.worker.destinations.api import NotSendable
from segrelay.worker.errors import FormatUnknown, PartitionsChange, PayloadRefused

STEP: Final = 200
"""Letters of one step: few, because a letter may hold a profile of a megabyte."""

_STEP_BYTES: Final = 4_000_000


@dataclass(slots=True)
class ReplayPlan:
    """The letters that a replay would take and leave out."""

    ids: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


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


def plan_replay(
    dead_letters: Iterable[StoredDeadLetter],
    settings: Settings,
    oldest_us: int,
    scopes: Mapping[str, Scope],
    *,
    named: bool = False,
) -> ReplayPlan:
    """Choose the letters that are replayed, the oldest death first.

    Those of events before `oldest_us`, the beginning of what the ledger remembers, are left out,
    and so are exhausted ones, unless the letters were named by their ids.
    """
    plan = ReplayPlan()
    for dead_letter in dead_letters:
        reason = obstacle(dead_letter, settings, oldest_us, scopes, named=named)
        if reason:
            plan.left_out[reason] += 1
        else:
            plan.ids.append(dead_letter["id"])
    plan.ids.reverse()
    return plan


def replay(
    client: Redis,
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
    for taken, wakeups in _steps(client, places, ids, audiences):
        for place in wakeups:
            waker.wake(place.destination, place.partition, queue=BACKFILL)
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
    audiences: AudienceStore | None,
) -> Iterator[tuple[int, list[PartitionKeys]]]:
    """Replay letters, or discard them where no audiences are given."""
    remaining = iter(ids)
    while part := list(islice(remaining, STEP)):
        groups: defaultdict[tuple[str, int], list[StoredDeadLetter]] = defaultdict(list)
        for dead_letter in find_dead_letters(client, places, Filter(frozenset(part))):
            known = identified(dead_letter, audiences) if audiences else dead_letter
            groups[dead_letter["destination"], dead_letter["partition"]].append(known)
        for place, dead_letters in groups.items():
            keys = PartitionKeys(*place)
            for chunk in _chunks(dead_letters):
                call = _call(keys, chunk, discards=audiences is None)
                ((taken, wake),) = opened.run(client, "leave", [call])
                if taken < 0:
                    raise PartitionsChange
                yield taken, [keys] if wake else []


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


_READ_AT_ONCE: Final = 100
"""Letters read in one call: few, because a letter may hold a profile of a megabyte."""
_UNREADABLE: Final = NotSendable(
    Death.UNREADABLE, "The entry can't be read by this version of segrelay."
)


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
) -> Iterator[Previewed]:
    """Rehearse letters that could be replayed."""
    for first in range(0, len(ids), _READ_AT_ONCE):
        part = Filter(frozenset(ids[first : first + _READ_AT_ONCE]))
        dead_letters = {
            one["id"]: candidate_of(identified(one, audiences))
            for one in find_dead_letters(client, places, part)
        }
        readable = [candidate for candidate in dead_letters.values() if candidate]
        yield from preview(readable, settings, now_us=1000 * now_ms)
        for dead_letter_id, candidate in dead_letters.items():
            if candidate is None:
                yield Previewed(dead_letter_id, None, _UNREADABLE)
