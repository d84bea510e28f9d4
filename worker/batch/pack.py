"""Step 7: pack parcels into requests, one request at a time, from the ledger as it is by then."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import orjson

from worker.batch.letters import Obituary
from worker.batch.opening import skip_by_ledger
from worker.batch.partition import Delivery, Settled
from worker.batch.prepare import Numbers, Parcel
from worker.batch.state import State
from worker.contract.words import Death, Skip
from worker.core.ledger import memberships
from worker.destinations.api import Knowledge, NotSendable
from worker.logs import told_bug

FRAME_BYTES: Final = 200
"""Room for what surrounds the users in a body."""


class Packed(NamedTuple):
    """A parcel as it stands in a request.

    Attributes:
        dropped: Names of the fields that were left out.
    """

    parcel: Parcel
    users: tuple[bytes, ...]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One HTTP request: users of one trigger, of different profiles.

    Args:
        body: The whole body.
        users: How many users it has.
        is_part: It is a part of a body that was refused.
    """

    packed: tuple[Packed, ...]
    url: str
    body: bytes
    users: int
    is_part: bool = False

    @property
    def parcels(self) -> tuple[Parcel, ...]:
        """Return what it carries."""
        return tuple(packed.parcel for packed in self.packed)

    @property
    def trigger(self) -> str:
        """Return the trigger's name."""
        return self.packed[0].parcel.delivery.trigger


class _Group(NamedTuple):
    """Only parcels of equal groups share a request."""

    trigger: str
    url: str
    root: bytes
    width: int


def _narrowest_first(item: tuple[_Group, deque[Parcel]]) -> float:
    return item[0].width or math.inf


@dataclass(slots=True)
class Packer:
    """Holds a batch's parcels and hands out one request after the other.

    Profiles, and the identifiers by which the destination would take two for one, are busy while
    a request with them is in flight.

    Of a trigger that waits, because nothing of it went through, one delivery goes first, alone:
    what comes of a failed request is not known for a while, and all other events of its profiles,
    of whichever trigger, are kept waiting that long.

    Args:
        skipped: What the ledger wanted skipped by the time it should have been packed.
        deaths: What turned out not to be sendable.
    """

    state: State
    numbers: Numbers
    skipped: list[Settled] = field(default_factory=list)
    deaths: list[tuple[Delivery, Obituary]] = field(default_factory=list)
    _groups: dict[_Group, deque[Parcel]] = field(default_factory=dict)
    _parts: deque[tuple[tuple[Parcel, ...], bool]] = field(default_factory=deque)
    _busy: set[bytes | str] = field(default_factory=set)
    _trying: set[str] = field(default_factory=set)
    _sharing: set[Parcel] = field(default_factory=set)

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Take parcels in; the narrowest go first, so that a halving comes to its end."""
        for parcel in parcels:
            self._groups.setdefault(self._group(parcel), deque()).append(parcel)
        self._groups = dict(sorted(self._groups.items(), key=_narrowest_first))

    def _group(self, parcel: Parcel) -> _Group:
        setback = self.state.setbacks.get(parcel.delivery.place)
        root = orjson.dumps(parcel.shaped.root, option=orjson.OPT_SORT_KEYS)
        url = parcel.shaped.url or parcel.route.url
        return _Group(parcel.delivery.trigger, url, root, setback.width if setback else 0)

    def split(self, request: Request) -> None:
        """Take a request back in two halves, to be sent before all else."""
        parcels = request.parcels
        middle = len(parcels) // 2
        self._parts.extendleft(((parcels[middle:], True), (parcels[:middle], True)))

    def again(self, request: Request) -> None:
        """Take a request back whole."""
        self._parts.appendleft((request.parcels, request.is_part))

    def reduce(self, request: Request, avoid: str) -> Request:
        """Keep one delivery of a request, for a probe, and take the others back.

        Args:
            request: Has more than one.
            avoid: Place of what failed last as a probe; another is chosen if there is one.
        """
        chosen = next(
            (p for p in request.packed if p.parcel.delivery.place != avoid), request.packed[0]
        )
        self.done(request)
        others = tuple(p.parcel for p in request.packed if p is not chosen)
        self._parts.appendleft((others, request.is_part))
        self._trying.add(request.trigger)
        return self._request((chosen,), is_part=request.is_part)

    def drop_trigger(self, trigger: str) -> None:
        """Leave everything of a trigger where it is, in its stream."""
        for group in [group for group in self._groups if group.trigger == trigger]:
            del self._groups[group]
        self._parts = deque(part for part in self._parts if part[0][0].delivery.trigger != trigger)

    def has_left(self, trigger: str) -> bool:
        """Say whether anything of a trigger has not been sent yet."""
        groups = any(group.trigger == trigger for group in self._groups)
        return groups or any(part[0][0].delivery.trigger == trigger for part in self._parts)

    def next_request(self) -> Request | None:
        """Pack the next request, or None if all that is left is busy or has to wait."""
        return self._next_part() or self._next_of_groups()

    def done(self, request: Request) -> None:
        """Free the profiles of a request that came to its end."""
        for packed in request.packed:
            self._busy -= packed.parcel.names
        self._trying.discard(request.trigger)

    def _next_part(self) -> Request | None:
        for _ in range(len(self._parts)):
            parcels, is_part = self._parts.popleft()
            trigger = parcels[0].delivery.trigger
            if not self._may_go(trigger) or any(self._is_blocked(parcel, ()) for parcel in parcels):
                self._parts.append((parcels, is_part))
                continue
            if trigger in self.state.waits and len(parcels) > 1:
                self._parts.appendleft((parcels[1:], is_part))
                parcels = parcels[:1]
            packed = tuple(p for parcel in parcels if (p := self._pack(parcel)))
            if packed:
                return self._request(packed, is_part=is_part)
        return None

    def _may_go(self, trigger: str) -> bool:
        return trigger not in self._trying and self.state.is_due(trigger)

    def _next_of_groups(self) -> Request | None:
        for group in sorted(self._groups, key=self._fewest_failures):
            if not self._may_go(group.trigger):
                continue
            request = self._of_group(group)
            if not self._groups.get(group):
                self._groups.pop(group, None)
            if request:
                return request
        return None

    def _of_group(self, group: _Group) -> Request | None:
        parcels = self._groups[group]
        api = parcels[0].route.api
        most = min(api.max_users, group.width or api.max_users)
        if group.trigger in self.state.waits:
            most = 1
            self._groups[group] = parcels = deque(sorted(parcels, key=self._failures))
        room = api.max_bytes - FRAME_BYTES - len(group.root)
        chosen: list[Packed] = []
        names: set[bytes | str] = set()
        left: deque[Parcel] = deque()
        users = 0
        while parcels and users < most:
            parcel = parcels.popleft()
            if self._is_blocked(parcel, names):
                left.append(parcel)
                continue
            packed = self._pack(parcel)
            if packed is None:
                continue
            size = sum(map(len, packed.users)) + len(packed.users)
            if chosen and (users + len(packed.users) > most or size > room):
                parcels.appendleft(parcel)
                break
            room -= size
            users += len(packed.users)
            names |= parcel.names
            chosen.append(packed)
        parcels.extendleft(reversed(left))
        return self._request(tuple(chosen), is_part=False) if chosen else None

    def _fewest_failures(self, group: _Group) -> int:
        """Return what orders the groups of a trigger that is tried; all others keep their order."""
        if group.trigger not in self.state.waits:
            return 0
        return min(map(self._failures, self._groups[group]), default=0)

    def _failures(self, parcel: Parcel) -> int:
        """Return how often its requests failed: who failed least shows best whether others do."""
        setback = self.state.setbacks.get(parcel.delivery.place)
        return setback.failures if setback else 0

    def _is_blocked(self, parcel: Parcel, names: Iterable[bytes | str]) -> bool:
        own = parcel.names
        if not own.isdisjoint(names) or not own.isdisjoint(self._busy):
            if parcel.digest not in self._busy and parcel.digest not in names:
                self._share(parcel)
            return True
        return self.state.waits_until_ms(parcel.delivery) > 0

    def _is_current(self, parcel: Parcel) -> bool:
        settled = skip_by_ledger(parcel.delivery, parcel.fact, self.state.records)
        if settled:
            self.skipped.append(settled)
        return settled is None

    def _pack(self, parcel: Parcel) -> Packed | None:
        """Ask the ledger again, correct, and encode; None if there is nothing to send any more."""
        if not self._is_current(parcel):
            return None
        try:
            return self._corrected(parcel)
        except Exception as error:  # noqa: BLE001 - it costs this one delivery
            message = told_bug(error, "packing.failed", trigger=parcel.route.trigger)
            self._not_sendable(parcel, NotSendable(Death.INVALID, message))
            return None

    def _corrected(self, parcel: Parcel) -> Packed | None:
        shaped = parcel.route.api.correct(parcel.shaped, parcel.occasion, self._knowledge(parcel))
        if isinstance(shaped, NotSendable):
            self._not_sendable(parcel, shaped)
            return None
        users = tuple(orjson.dumps(user) for user in shaped.users)
        largest = parcel.route.api.max_bytes - FRAME_BYTES
        if sum(map(len, users)) > largest:
            message = f"Alone it has more than the {largest:,} bytes that a request may have."
            self._not_sendable(parcel, NotSendable(Death.TOO_LARGE, message))
            return None
        return Packed(parcel, users, shaped.dropped)

    def _knowledge(self, parcel: Parcel) -> Knowledge:
        # The profile of a repair is that of an older event: all that the ledger knows is newer.
        fact = replace(parcel.fact, time_us=0) if parcel.fact.repair else parcel.fact
        known = memberships(self.state.records[parcel.digest], fact)
        return Knowledge(
            self.numbers.slugs(known.inside),
            self.numbers.slugs(known.outside),
            known.stale,
            known.stale_opt_ins,
        )

    def _not_sendable(self, parcel: Parcel, why: NotSendable) -> None:
        match why.reason:
            case Skip() as reason:
                remark = f"{reason.value}: {why.message}"
                self.skipped.append(Settled(parcel.delivery, reason, remark=remark))
            case Death() as reason:
                template = parcel.route.template
                obituary = Obituary(
                    reason, why.message, template.content_hash if template else "", parcel.body
                )
                self.deaths.append((parcel.delivery, obituary))

    def _request(self, packed: tuple[Packed, ...], *, is_part: bool) -> Request:
        first = packed[0].parcel
        users = [user for p in packed for user in p.users]
        for p in packed:
            self._busy |= p.parcel.names
        if first.delivery.trigger in self.state.waits:
            self._trying.add(first.delivery.trigger)
        return Request(
            packed,
            first.shaped.url or first.route.url,
            first.route.api.assemble(users, first.shaped.root),
            len(users),
            is_part,
        )

    def _share(self, parcel: Parcel) -> None:
        """Count, once, that the destination takes this profile and another one for one person."""
        if parcel not in self._sharing:
            self._sharing.add(parcel)
            self.state.identities_shared[parcel.delivery.trigger] += 1

    def halves_left(self) -> Iterator[tuple[Parcel, int]]:
        """Yield what is left of refused bodies, with how many may share its next request."""
        for parcels, is_part in self._parts:
            if is_part:
                yield from ((parcel, len(parcels)) for parcel in parcels)
