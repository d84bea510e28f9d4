"""Step 7: pack parcels into requests, one request at a time, from the ledger as it is by then."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import orjson

from worker.batch.letters import Obituary
from worker.batch.opening import skip_by_ledger
from worker.batch.partition import Delivery, Settled
from worker.batch.prepare import Numbers, Parcel
from worker.batch.routes import Route
from worker.batch.state import State
from worker.contract.words import Death, Skip
from worker.core.ledger import memberships
from worker.destinations.api import Api, Knowledge, NotSendable
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
    """One HTTP request: users of one destination, of different profiles.

    Args:
        body: The whole body.
        users: How many users it has.
        triggers: Whose deliveries it carries.
        is_part: It is a part of a body that was refused.
    """

    packed: tuple[Packed, ...]
    url: str
    body: bytes
    users: int
    triggers: tuple[str, ...]
    is_part: bool = False

    @property
    def parcels(self) -> tuple[Parcel, ...]:
        """Return what it carries."""
        return tuple(packed.parcel for packed in self.packed)


class _Kind(NamedTuple):
    """What parcels have in common that may share a request; the rest is the destination's.

    Attributes:
        api: The number of their API: a trigger may have made requests of its own kind.
        alone: The trigger, if it goes alone; "" = several share.
        width: How many users at most; 0 = as many as the destination takes.
    """

    api: int
    alone: str
    url: str
    root: bytes
    width: int = 0


@dataclass(slots=True, eq=False)
class _Part:
    """Parcels of one kind, in their order.

    Args:
        is_refused: They were in a body that was refused.
    """

    kind: _Kind
    parcels: deque[Parcel] = field(default_factory=deque)
    is_refused: bool = False


def _narrowest_first(part: _Part) -> float:
    return part.kind.width or math.inf


@dataclass(slots=True)
class Packer:
    """Holds a batch's parcels and hands out one request after the other.

    Whatever shares URL and root options shares a request, of whichever trigger. A trigger that is
    in trouble goes alone, so that it costs the others nothing.

    Profiles, and the identifiers by which the destination would take two for one, are busy while
    a request with them is in flight.

    Of a trigger that waits, because nothing of it went through, one delivery goes first, alone:
    what comes of a failed request is not known for a while, and all other events of its profiles,
    of whichever trigger, are kept waiting that long.

    Args:
        skipped: What the ledger wanted skipped by the time it should have been packed.
        deaths: What turned out not to be sendable.
        apart: Triggers of which a body was refused: what is left of them goes alone.
    """

    state: State
    numbers: Numbers
    skipped: list[Settled] = field(default_factory=list)
    deaths: list[tuple[Delivery, Obituary]] = field(default_factory=list)
    apart: set[str] = field(default_factory=set)
    _parts: deque[_Part] = field(default_factory=deque)
    _fresh: dict[_Kind, _Part] = field(default_factory=dict)
    _apis: list[Api] = field(default_factory=list)
    _api_of: dict[str, int] = field(default_factory=dict)
    _busy: set[bytes | str] = field(default_factory=set)
    _trying: set[str] = field(default_factory=set)
    _sharing: set[Parcel] = field(default_factory=set)

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Take parcels in; the narrowest go first, so that a halving comes to its end."""
        for parcel in parcels:
            self._add(parcel)
        self._parts = deque(sorted(self._parts, key=_narrowest_first))

    def _add(self, parcel: Parcel) -> None:
        kind = self._kind(parcel)
        part = self._fresh.setdefault(kind, _Part(kind))
        if not part.parcels:
            self._parts.append(part)
        part.parcels.append(parcel)

    def _kind(self, parcel: Parcel) -> _Kind:
        trigger = parcel.delivery.trigger
        setback = self.state.setbacks.get(parcel.delivery.place)
        root = orjson.dumps(parcel.shaped.root, option=orjson.OPT_SORT_KEYS)
        url = parcel.shaped.url or parcel.route.url
        alone = trigger if setback or self._goes_alone(trigger) else ""
        api = self._api_number(parcel.route)
        return _Kind(api, alone, url, root, setback.width if setback else 0)

    def _api_number(self, route: Route) -> int:
        """Return a number that triggers have in common whose APIs are equal."""
        number = self._api_of.get(route.trigger)
        if number is None:
            if route.api not in self._apis:
                self._apis.append(route.api)
            number = self._api_of[route.trigger] = self._apis.index(route.api)
        return number

    def _goes_alone(self, trigger: str) -> bool:
        return trigger in self.apart or self.state.is_trial(trigger)

    def split(self, request: Request) -> None:
        """Take a request back in two parts, to be sent before all else.

        Several triggers are parted from each other before one of them is halved.
        """
        parcels = sorted(request.parcels, key=lambda parcel: parcel.delivery.trigger)
        names = [parcel.delivery.trigger for parcel in parcels]
        middle = len(parcels) // 2
        borders = [at for at in range(1, len(names)) if names[at] != names[at - 1]]
        at = min(borders, key=lambda border: abs(border - middle)) if borders else middle
        self._put_back(parcels[at:], is_refused=True)
        self._put_back(parcels[:at], is_refused=True)

    def again(self, request: Request) -> None:
        """Take a request back whole."""
        self._put_back(request.parcels, is_refused=request.is_part)

    def _put_back(self, parcels: Sequence[Parcel], *, is_refused: bool) -> None:
        alone, *others = dict.fromkeys(parcel.delivery.trigger for parcel in parcels)
        kind = self._kind(parcels[0])._replace(alone="" if others else alone, width=0)
        self._parts.appendleft(_Part(kind, deque(parcels), is_refused))

    def reduce(self, request: Request, avoid: str) -> Request:
        """Keep one delivery of a request, for a probe, and take the others back.

        Args:
            request: Of one trigger; has more than one.
            avoid: Place of what failed last as a probe; another is chosen if there is one.
        """
        chosen = next(
            (p for p in request.packed if p.parcel.delivery.place != avoid), request.packed[0]
        )
        self.done(request)
        others = [p.parcel for p in request.packed if p is not chosen]
        self._put_back(others, is_refused=request.is_part)
        self._trying |= set(request.triggers)
        return self._request((chosen,), is_part=request.is_part)

    def drop(self, triggers: Collection[str]) -> None:
        """Leave everything of some triggers where it is, in their streams."""
        if not triggers:
            return
        for part in self._parts:
            part.parcels = deque(p for p in part.parcels if p.delivery.trigger not in triggers)
        self._forget_empty()

    def has_left(self, trigger: str) -> bool:
        """Say whether anything of a trigger has not been sent yet."""
        return any(p.delivery.trigger == trigger for part in self._parts for p in part.parcels)

    def next_request(self) -> Request | None:
        """Pack the next request, or None if all that is left is busy or has to wait."""
        moved = True
        while moved:
            moved = False
            for part in sorted(self._parts, key=self._fewest_failures):
                request, in_trouble = self._of_part(part)
                for parcel in in_trouble:
                    self._add(parcel)
                if request:
                    self._forget_empty()
                    return request
                moved = moved or bool(in_trouble)
        self._forget_empty()
        return None

    def done(self, request: Request) -> None:
        """Free the profiles of a request that came to its end."""
        for packed in request.packed:
            self._busy -= packed.parcel.names
        self._trying -= set(request.triggers)

    def _forget_empty(self) -> None:
        self._parts = deque(part for part in self._parts if part.parcels)

    def _may_go(self, trigger: str) -> bool:
        return trigger not in self._trying and self.state.is_due(trigger)

    def _of_part(self, part: _Part) -> tuple[Request | None, list[Parcel]]:
        """Take a request's parcels out of a part; those that have to go alone come out, too."""
        alone, in_trouble = part.kind.alone, list[Parcel]()
        if not part.parcels or (alone and not self._may_go(alone)):
            return None, in_trouble
        api = part.parcels[0].route.api
        most = min(api.max_users, part.kind.width or api.max_users)
        if alone in self.state.waits:
            most = 1
            part.parcels = deque(sorted(part.parcels, key=self._failures))
        room = api.max_bytes - FRAME_BYTES - len(part.kind.root)
        chosen: list[Packed] = []
        names: set[bytes | str] = set()
        left: deque[Parcel] = deque()
        users = 0
        while part.parcels and users < most:
            parcel = part.parcels.popleft()
            if not alone and self._goes_alone(parcel.delivery.trigger):
                in_trouble.append(parcel)
                continue
            if not self._may_go(parcel.delivery.trigger) or self._is_blocked(parcel, names):
                left.append(parcel)
                continue
            packed = self._pack(parcel)
            if packed is None:
                continue
            size = sum(map(len, packed.users)) + len(packed.users)
            if chosen and (users + len(packed.users) > most or size > room):
                part.parcels.appendleft(parcel)
                break
            room -= size
            users += len(packed.users)
            names |= parcel.names
            chosen.append(packed)
        part.parcels.extendleft(reversed(left))
        request = self._request(tuple(chosen), is_part=part.is_refused) if chosen else None
        return request, in_trouble

    def _fewest_failures(self, part: _Part) -> int:
        """Return what orders the parts of a trigger that is tried; all others keep their order."""
        if part.kind.alone not in self.state.waits:
            return 0
        return min(map(self._failures, part.parcels), default=0)

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
        triggers = tuple(dict.fromkeys(p.parcel.delivery.trigger for p in packed))
        self._trying |= self.state.waits.keys() & set(triggers)
        return Request(
            packed,
            first.shaped.url or first.route.url,
            first.route.api.assemble(users, first.shaped.root),
            len(users),
            triggers,
            is_part,
        )

    def _share(self, parcel: Parcel) -> None:
        """Count, once, that the destination takes this profile and another one for one person."""
        if parcel not in self._sharing:
            self._sharing.add(parcel)
            self.state.identities_shared[parcel.delivery.trigger] += 1

    def halves_left(self) -> Iterator[tuple[Parcel, int]]:
        """Yield what is left of refused bodies, with how many may share its next request."""
        for part in self._parts:
            if part.is_refused:
                yield from ((parcel, len(part.parcels)) for parcel in part.parcels)
