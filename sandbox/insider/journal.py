"""The log of requests that write: their fates, repeats and overlaps."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain
from typing import Any, Final, NamedTuple

import orjson

from segrelay.sandbox.insider.api import Write
from segrelay.sandbox.insider.profiles import Profiles
from segrelay.sandbox.insider.rules import WRITES

_KEPT_A_GENERATION: Final = 2_000_000


class RepeatedFate(IntEnum):
    """The fate of a received body, user or event; a higher fate replaces a lower one."""

    NOT_APPLIED = 1
    """Refused, or lost before it took effect: receiving it again is right."""
    IN_FLIGHT = 2
    """The request that carried it has not ended yet."""
    UNANSWERED = 3
    """Took effect without a sure answer: receiving it again is explained."""
    ANSWERED = 4
    """Took effect and was answered as delivered: receiving it again needs an explanation."""


class _LastFate(NamedTuple):
    """The last fate of a body, user or event, and the number of its request."""

    fate: RepeatedFate
    number: int


class Repeats:
    """The fates of whole bodies or of single users, by their hashes.

    Remembers two to four million; older ones are forgotten.

    Attributes:
        counts: The number of bodies or users that came again, by the highest fate before.
        doubled: The numbers of the requests of which something came again, by their fate.
    """

    def __init__(self) -> None:
        self.received = 0
        self.counts: Counter[RepeatedFate] = Counter()
        self.doubled: dict[RepeatedFate, set[int]] = {fate: set() for fate in RepeatedFate}
        self._young: dict[int, _LastFate] = {}
        self._old: dict[int, _LastFate] = {}

    def receive(self, hashes: Iterable[int], number: int = 0) -> RepeatedFate | None:
        """Record the hashes of a request, and return the highest fate that one of them had."""
        highest: RepeatedFate | None = None
        past, fates = _LastFate(RepeatedFate.IN_FLIGHT, number), self._young
        for each in hashes:
            self.received += 1
            before = fates.get(each) or self._old.get(each)
            if before is None:
                fates[each] = past
                continue
            self.counts[before.fate] += 1
            self.doubled[before.fate].add(before.number)
            highest = before.fate if highest is None else max(highest, before.fate)
            fates[each] = before if before.fate > RepeatedFate.IN_FLIGHT else past
        if len(self._young) > _KEPT_A_GENERATION:
            self._old, self._young = self._young, {}
        return highest

    def end(self, hashes: Iterable[int], fate: RepeatedFate, number: int = 0) -> None:
        """Record the fate of bodies or users, by their hashes."""
        past, fates = _LastFate(fate, number), self._young
        for each in hashes:
            before = fates.get(each)
            if before is None or before.fate is RepeatedFate.IN_FLIGHT:
                fates[each] = past
            else:
                fates[each] = before if before.fate >= fate else past

    def shown(self) -> dict[str, int]:
        """Return the counts as JSON; `doubled_…` counts requests."""
        again = {f"again_after_{fate.name.lower()}": self.counts[fate] for fate in RepeatedFate}
        doubled = {f"doubled_{fate.name.lower()}": len(self.doubled[fate]) for fate in RepeatedFate}
        return {"received": self.received, "again": sum(self.counts.values()), **again, **doubled}


_REQUESTS_KEPT: Final = 5_000
_OVERLAPS_KEPT: Final = 1_000
_SECONDS_KEPT: Final = 7_200
_PROFILES_NAMED: Final = 5
CLOSED: Final = 0
"""The status in the log of a connection that was closed without an answer."""


@dataclass(slots=True, eq=False)
class Flight:
    """One request from its arrival until it is answered and applied, if it ever is.

    Attributes:
        status: The status of the answer; CLOSED without one, None before it.
        sure: True if the client has got the whole, well-formed answer.
        entries: The hash of each user, over its content and the path.
        events: The hash of each event of each user, if events are tracked.
        parts: The hashes of events or removals by their user's hash, if events are tracked.
        touched: The hash of the user that touched a profile, by the profile's `kind:value` or
            serial.
    """

    number: int
    path: str
    users: int
    size: int
    begun_at: float
    fault: str
    body_hash: int
    entries: list[int]
    touched: dict[str | int, int]
    status: int | None = None
    sure: bool = False
    applied: bool = False
    awaits_effect: bool = True
    refused: frozenset[int] = field(default_factory=frozenset)
    events: list[list[int]] = field(default_factory=list)
    parts: dict[int, frozenset[int]] = field(default_factory=dict)
    ended_at: float = 0.0

    def shown(self) -> dict[str, Any]:
        """Return the request as the log of the sandbox shows it."""
        return {
            "number": self.number,
            "at": self.begun_at,
            "seconds": round(self.ended_at - self.begun_at, 6),
            "path": self.path,
            "users": self.users,
            "bytes": self.size,
            "status": self.status,
            "applied": self.applied,
            "refused": len(self.refused),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two requests in flight at once that touched the same profiles.

    Attributes:
        different: The number of shared profiles for which their data differs.
        late: True if the first request had its answer already, and took effect only later.
    """

    first: int
    second: int
    at: float
    profiles: int
    different: int
    bodies_equal: bool
    late: bool
    named: tuple[str, ...]


class Journal:
    """The log of requests, which tests and people query.

    Args:
        track_events: True if events are remembered by themselves, whichever user object brought
            them.
    """

    def __init__(self, *, track_events: bool = False) -> None:
        self.requests: deque[dict[str, Any]] = deque(maxlen=_REQUESTS_KEPT)
        self.statuses: Counter[int] = Counter()
        self.paths: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.timeline: dict[int, Counter[int]] = {}
        self.overlaps: deque[Overlap] = deque(maxlen=_OVERLAPS_KEPT)
        self.overlap_counts: Counter[str] = Counter()
        self.profiles_twice_in_a_request = 0
        self.bodies = {path: Repeats() for path in sorted(WRITES)}
        self.entries = {path: Repeats() for path in sorted(WRITES)}
        self.events = Repeats()
        self.users_with_several_events = 0
        self._tracks_events = track_events
        self.requests_again: Counter[tuple[str, RepeatedFate]] = Counter()
        self._in_flight: list[Flight] = []
        self._number = 0

    @property
    def in_flight(self) -> int:
        """Return the number of requests that are not yet answered or not yet applied."""
        return len(self._in_flight)

    def totals(self) -> dict[str, Any]:
        """Return the numbers of requests, by status, path and fault."""
        return {
            "total": self.statuses.total(),
            "by_status": dict(self.statuses),
            "by_path": dict(self.paths),
            "by_fault": dict(self.faults),
        }

    def turned_away(self, path: str, size: int, status: int, now: float) -> None:
        """Log a request that was refused by its headers, form or rate."""
        self._number += 1
        flight = Flight(self._number, path, 0, size, now, "", 0, [], {}, status, ended_at=now)
        self._log(flight)

    def begin(
        self, request: Write, body: bytes, *, profiles: Profiles, fault: str, now: float
    ) -> Flight:
        """Log the arrival of a request that may touch profiles."""
        self._number += 1
        path = request.path
        entries = [
            hash((path, orjson.dumps(user, option=orjson.OPT_SORT_KEYS))) for user in request.users
        ]
        touched = self._touched(request.keys, entries, profiles)
        flight = Flight(
            number=self._number,
            path=path,
            users=len(request.users),
            size=len(body),
            begun_at=now,
            fault=fault,
            body_hash=hash((path, body)),
            entries=entries,
            touched=touched,
        )
        if self._tracks_events:
            self._track_events(flight, request)
        self._find_overlaps(flight, now)
        self._in_flight.append(flight)
        self.bodies[path].receive((flight.body_hash,), flight.number)
        before = self.entries[path].receive(entries, flight.number)
        if before is not None:
            self.requests_again[path, before] += 1
        return flight

    def _track_events(self, flight: Flight, request: Write) -> None:
        flight.events = _events_of(request)
        flight.parts = {
            entry: frozenset(events) or _removals_of(user)
            for entry, events, user in zip(
                flight.entries, flight.events, request.users, strict=True
            )
        }
        self.users_with_several_events += sum(len(events) > 1 for events in flight.events)
        self.events.receive(chain.from_iterable(flight.events), flight.number)

    def took_effect(self, flight: Flight, refused: frozenset[int], now: float) -> None:
        """Log that a request was applied, except for refused users."""
        flight.applied, flight.awaits_effect, flight.refused = True, False, refused
        self._land(flight, now)

    def never_takes_effect(self, flight: Flight, now: float) -> None:
        """Log that a request will never be applied."""
        flight.awaits_effect = False
        self._land(flight, now)

    def answered(self, flight: Flight, status: int, now: float, *, sure: bool) -> None:
        """Log the answer to a request."""
        flight.status, flight.sure = status, sure
        self._land(flight, now)

    def _land(self, flight: Flight, now: float) -> None:
        if flight.awaits_effect or flight.status is None:
            return
        flight.ended_at = now
        with contextlib.suppress(ValueError):  # gone by a reset
            self._in_flight.remove(flight)
        self._log(flight)
        self._note_fates(flight)
        flight.touched, flight.entries, flight.events, flight.parts = {}, [], [], {}

    def _note_fates(self, flight: Flight) -> None:
        bodies, entries = self.bodies[flight.path], self.entries[flight.path]
        fate = _fate(flight)
        bodies.end((flight.body_hash,), fate, flight.number)
        for position, events in enumerate(flight.events):
            own = RepeatedFate.NOT_APPLIED if position in flight.refused else fate
            self.events.end(events, own, flight.number)
        if not flight.refused:
            entries.end(flight.entries, fate, flight.number)
            return
        for position, entry in enumerate(flight.entries):
            own = RepeatedFate.NOT_APPLIED if position in flight.refused else fate
            entries.end((entry,), own, flight.number)

    def _log(self, flight: Flight) -> None:
        status = flight.status or CLOSED
        self.requests.append(flight.shown())
        self.statuses[status] += 1
        self.paths[flight.path] += 1
        if flight.fault:
            self.faults[flight.fault] += 1
        second = int(flight.begun_at)
        self.timeline.setdefault(second, Counter())[status] += 1
        if len(self.timeline) > _SECONDS_KEPT:
            del self.timeline[min(self.timeline)]

    def _touched(
        self, keys: Sequence[tuple[str, ...]], entries: Sequence[int], profiles: Profiles
    ) -> dict[str | int, int]:
        touched: dict[str | int, int] = {}
        for of_user, entry in zip(keys, entries, strict=True):
            profile = profiles.find(of_user)
            names: tuple[str | int, ...] = of_user
            if profile is not None:
                names = (profile.serial, *of_user)
            if any(name in touched for name in names):
                self.profiles_twice_in_a_request += 1
            for name in names:
                touched[name] = entry
        return touched

    def _find_overlaps(self, flight: Flight, now: float) -> None:
        for other in self._in_flight:
            if not flight.touched.keys().isdisjoint(other.touched):
                overlap = _overlap(other, flight, now)
                self.overlaps.append(overlap)
                self.overlap_counts["total"] += 1
                self.overlap_counts["different" if overlap.different else "equal"] += 1
                self.overlap_counts["late"] += overlap.late


def _events_of(request: Write) -> list[list[int]]:
    """Return a hash for each event of each user, over the event and the identifiers."""
    return [
        [
            hash((keys[:1], orjson.dumps(event, option=orjson.OPT_SORT_KEYS)))
            for event in user.get("events", ())
        ]
        for user, keys in zip(request.users, request.keys, strict=True)
    ]


def _removals_of(user: Mapping[str, Any]) -> frozenset[int]:
    """Return a hash for each value that an attribute delete takes out of a list."""
    holders = (user.get("partial", {}), user.get("custom", {}).get("partial", {}))
    return frozenset(
        hash((name, orjson.dumps(value)))
        for holder in holders
        for name, values in holder.items()
        for value in values
    )


def _tell_one_thing(first: Flight, second: Flight, key: str | int) -> bool:
    """Say whether two requests have equal data of a profile, or one has a part of the other's.

    A delivery that shared a user object goes by itself after a request without an answer.
    """
    one, other = first.touched[key], second.touched[key]
    if one == other:
        return True
    parts = first.parts.get(one, frozenset[int]())
    others = second.parts.get(other, frozenset[int]())
    return bool(parts) and bool(others) and (parts <= others or others <= parts)


def _fate(flight: Flight) -> RepeatedFate:
    if not flight.applied:
        return RepeatedFate.NOT_APPLIED
    return RepeatedFate.ANSWERED if flight.sure else RepeatedFate.UNANSWERED


def _overlap(first: Flight, second: Flight, now: float) -> Overlap:
    shared = first.touched.keys() & second.touched.keys()
    unlike = {second.touched[key] for key in shared if not _tell_one_thing(first, second, key)}
    return Overlap(
        first=first.number,
        second=second.number,
        at=now,
        profiles=len({second.touched[key] for key in shared}),
        different=len(unlike),
        bodies_equal=first.body_hash == second.body_hash,
        late=first.status is not None,
        named=tuple(sorted(key for key in shared if isinstance(key, str))[:_PROFILES_NAMED]),
    )
