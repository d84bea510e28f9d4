"""The batch: one object, shared by all steps of the drain that work on it.

The share of the canaries of changed templates that one drain may use.

A drain has a share of each canary of its destination. What is left to be rendered beyond it stays
in its stream, and nothing more of that trigger is read in this drain; other triggers go on.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import orjson

from segrelay.worker.batch.dead_letters import Failure
from segrelay.worker.batch.delivery import Contender, Parcel, Request, Route
from segrelay.worker.batch.partition import Delivery, Settled
from segrelay.worker.batch.state import State
from segrelay.worker.contract.words import LIVE, Death, Skip
from segrelay.worker.core.gate import LaneKind
from segrelay.worker.destinations.api import Api, NotSendable


class Numbers(Protocol):
    """Gives audiences and triggers the numbers by which the ledger knows them."""

    async def learn(self, audiences: Iterable[str], triggers: Iterable[str]) -> None:
        """Make sure that these audiences and triggers have numbers."""

    def audience(self, slug: str) -> int:
        """Return an audience's number."""

    def trigger(self, name: str) -> int:
        """Return a trigger's number."""

    def slugs(self, numbers: Iterable[int]) -> frozenset[str]:
        """Return the audiences with these numbers; a number whose name was lost has none."""

    def triggers(self) -> dict[int, str]:
        """Return the triggers by their numbers."""


class Kind(NamedTuple):
    """The properties that parcels must have in common to share a request.

    Attributes:
        api: The number of their API. A trigger's settings may make an API of its own kind.
        alone: The trigger, if its deliveries share no request with others; "" = they may.
        width: How many users a request may have; 0 = as many as the destination takes.
    """

    api: int
    alone: str
    url: str
    root: bytes
    width: int = 0


@dataclass(slots=True, eq=False)
class Part:
    """Parcels of one kind, in their order.

    Args:
        is_refused: They were in a body that was refused.
        is_due: Some of them were left by the batch before; they are not left again.
    """

    kind: Kind
    parcels: deque[Parcel] = field(default_factory=deque)
    is_refused: bool = False
    is_due: bool = False

    @property
    def is_ordinary(self) -> bool:
        """Say whether nothing has gone wrong with the parcels of the part."""
        return not (self.is_refused or self.kind.alone or self.kind.width)


@dataclass(slots=True)
class Batch:
    """The deliveries that were read at once, from the ledger's verdict to the settlement.

    It keeps what is still to be sent in parts: the parcels of one kind, or what is left of a
    request that was taken back. Whatever shares API, URL and root options shares a part, of
    whichever trigger. A trigger that is in trouble goes alone, so that it costs the others nothing.

    Args:
        routes: By trigger's name.
        kind: Of the lanes that it was read from.
        streams: All of this kind that could be read.
        contenders: The deliveries that could be decoded.
        is_last: Nothing is behind it.
        skipped: Outcomes of deliveries that need no request, until they are settled.
        deaths: Deliveries that can't be sent. Before they are settled, the streak of their cause is
            asked how many may die.
        stopped: By trigger, why only another version of segrelay can go on with it.
        parts: What is to be sent. Parts that were taken back come first, then the narrowest.
        apart: Triggers of which a body was refused. They share no further request of the batch.
        busy: Profiles, and identifiers by which the destination knows them, of which a request is
            in flight.
        trying: Triggers that wait, while the one delivery that tries them is in flight.
        settled: How many of its deliveries have got their outcome.
        before: By place, what was rendered before this batch's turn.
        left_over: The places of those that the batch before has read, but left.
    """

    state: State
    numbers: Numbers
    routes: Mapping[str, Route] = field(default_factory=dict)
    kind: LaneKind = LIVE
    streams: Sequence[str] = ()
    deliveries: Sequence[Delivery] = ()
    contenders: Sequence[Contender] = ()
    is_last: bool = False
    skipped: list[Settled] = field(default_factory=list)
    deaths: list[tuple[Delivery, Failure]] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    apart: set[str] = field(default_factory=set)
    busy: set[bytes | str] = field(default_factory=set)
    trying: set[str] = field(default_factory=set)
    settled: int = 0
    before: dict[str, Parcel] = field(default_factory=dict)
    left_over: frozenset[str] = frozenset()
    _fresh: dict[Kind, Part] = field(default_factory=dict)
    _apis: list[Api] = field(default_factory=list)
    _api_of: dict[str, int] = field(default_factory=dict)

    def take_in(
        self, deliveries: Sequence[Delivery], contenders: Sequence[Contender], *, is_last: bool
    ) -> None:
        """Store the deliveries that were read, and the contenders decoded from them."""
        self.deliveries, self.contenders, self.is_last = deliveries, contenders, is_last

    def put_first(
        self, left: Sequence[Delivery], contenders: Sequence[Contender], streams: Sequence[str]
    ) -> None:
        """Put deliveries that the previous batch has left in front of those read after it."""
        self.streams = streams
        self.deliveries = [*left, *self.deliveries]
        self.contenders = [*contenders, *self.contenders]

    def follow(self, batch: Batch, prepared: Batch | None = None) -> None:
        """Take over the parcels that the previous batch rendered but leaves in the streams."""
        if prepared:
            self.before |= prepared.before
        left = {p.delivery.place: p for part in batch.parts for p in part.parcels}
        self.before |= left
        self.left_over = frozenset(left)

    def unread(self) -> list[Delivery]:
        """Return the rendered deliveries that stay in the streams, with those that they beat."""
        parcels = [p for part in self.parts for p in part.parcels]
        superseded = [superseded.delivery for p in parcels for superseded in p.superseded]
        return [*(p.delivery for p in parcels), *superseded]

    def left(self, contenders: Iterable[Contender]) -> list[Contender]:
        """Return the contenders whose triggers can go on; the others stay in their streams."""
        return [c for c in contenders if c.delivery.trigger not in self.stopped]

    def add_rendered(self, contender: Contender) -> None:
        """Add the parcel of a contender that was rendered before this batch's turn."""
        delivery, superseded = contender.delivery, contender.superseded
        parcel = self.before.pop(delivery.place)
        if superseded or parcel.superseded or parcel.delivery is not delivery:
            parcel = replace(parcel, delivery=delivery, fact=contender.fact, superseded=superseded)
        part = self.add(parcel)
        part.is_due = part.is_due or delivery.place in self.left_over

    def add(self, parcel: Parcel) -> Part:
        """Add a parcel to its part. Narrow parts come first, so that a halving comes to its end."""
        kind = self._kind(parcel)
        part = self._fresh.get(kind) or self._fresh.setdefault(kind, Part(kind))
        if not part.parcels:
            wider = (at for at, other in enumerate(self.parts) if self._is_wider(other, part))
            self.parts.insert(next(wider, len(self.parts)), part)
        part.parcels.append(parcel)
        return part

    def _is_wider(self, other: Part, part: Part) -> bool:
        is_fresh = other is self._fresh.get(other.kind)
        return is_fresh and (other.kind.width or math.inf) > (part.kind.width or math.inf)

    def _kind(self, parcel: Parcel) -> Kind:
        trigger = parcel.delivery.trigger
        backoffs = self.state.backoffs
        backoff = backoffs.get(parcel.delivery.place) if backoffs else None
        root = orjson.dumps(parcel.shaped.root, option=orjson.OPT_SORT_KEYS)
        url = parcel.shaped.url or parcel.route.rules.url
        alone = trigger if backoff or self.goes_alone(trigger) else ""
        api = self._api_number(parcel.route)
        return Kind(api, alone, url, root, backoff.width if backoff else 0)

    def _api_number(self, route: Route) -> int:
        """Return a number that is the same for all triggers whose APIs are equal."""
        number = self._api_of.get(route.trigger)
        if number is None:
            if route.api not in self._apis:
                self._apis.append(route.api)
            number = self._api_of[route.trigger] = self._apis.index(route.api)
        return number

    def goes_alone(self, trigger: str) -> bool:
        """Say whether a trigger's deliveries share no request with those of other triggers."""
        return trigger in self.apart or self.state.is_preview(trigger)

    def may_share(self, part: Part) -> bool:
        """Say whether deliveries of one person in a part may share a user object.

        Where something went wrong, each goes by itself, until it is known which one is at fault.
        """
        kind = part.kind
        in_trouble = bool(kind.alone) and self.goes_alone(kind.alone)
        return not (part.is_refused or kind.width or in_trouble)

    def may_go(self, trigger: str) -> bool:
        """Say whether a request of a trigger may be made now."""
        return trigger not in self.trying and self.state.is_due(trigger)

    def split(self, request: Request) -> None:
        """Take a request back as two parts, which are sent before all else.

        If it carries several triggers, they are separated before one of them is halved.
        """
        parcels = sorted(request.parcels, key=lambda parcel: parcel.delivery.trigger)
        names = [parcel.delivery.trigger for parcel in parcels]
        middle = len(parcels) // 2
        borders = [at for at in range(1, len(names)) if names[at] != names[at - 1]]
        at = min(borders, key=lambda border: abs(border - middle)) if borders else middle
        self.put_back(parcels[at:], is_refused=True)
        self.put_back(parcels[:at], is_refused=True)

    def again(self, request: Request) -> None:
        """Take a request back, to be sent again without being split."""
        self.put_back(request.parcels, is_refused=request.is_part)

    def put_back(self, parcels: Sequence[Parcel], *, is_refused: bool) -> None:
        """Take parcels back, to be sent before all else."""
        alone, *others = dict.fromkeys(parcel.delivery.trigger for parcel in parcels)
        kind = self._kind(parcels[0])._replace(alone="" if others else alone, width=0)
        self.parts.insert(0, Part(kind, deque(parcels), is_refused))

    def not_sendable(
        self, delivery: Delivery, why: NotSendable, template: str, body: bytes
    ) -> None:
        """Remember a delivery of which nothing valid can be sent until it is settled."""
        match why.reason:
            case Skip() as reason:
                remark = f"{reason.value}: {why.message}"
                self.skipped.append(Settled(delivery, reason, remark=remark))
            case Death() as reason:
                self.deaths.append((delivery, Failure(reason, why.message, template, body)))

    def done(self, request: Request) -> None:
        """Free the profiles of a request that came to its end."""
        for parcel in request.parcels:
            self.busy -= parcel.names
        self.trying -= set(request.triggers)

    def leave(self, trigger: str) -> None:
        """Leave in their streams the unsent deliveries of a trigger that was just paused."""
        self.state.paused.add(trigger)
        self.drop([trigger])

    def drop(self, triggers: Collection[str]) -> None:
        """Leave in their streams the unsent deliveries of these triggers."""
        if not triggers:
            return
        for part in self.parts:
            part.parcels = deque(p for p in part.parcels if p.delivery.trigger not in triggers)
        self.forget_empty()

    def forget_empty(self) -> None:
        """Remove the parts that hold no more parcels."""
        self.parts = [part for part in self.parts if part.parcels]

    def has_left(self, trigger: str) -> bool:
        """Say whether anything of a trigger has not been sent yet."""
        return any(p.delivery.trigger == trigger for part in self.parts for p in part.parcels)

    def halves_left(self) -> Iterator[tuple[Parcel, int]]:
        """Yield the unsent parcels of refused bodies, each with the width of its next request."""
        for part in self.parts:
            if part.is_refused:
                yield from ((parcel, len(part.parcels)) for parcel in part.parcels)


@dataclass(slots=True)
class CanaryShares:
    """One drain's share of the canaries, and the outcomes so far.

    Args:
        held: Triggers that it leaves alone: the canary goes with another version of the template
            than this process has, or others have all that is left of it.
        shares: By trigger, how many deliveries may be rendered. Other triggers have no limit.
        outcomes: By trigger, how the deliveries of its canary ended, e.g. `skipped|asserted`.
    """

    held: frozenset[str] = frozenset()
    shares: Mapping[str, int] = field(default_factory=dict)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    _admitted: dict[str, set[str]] = field(default_factory=dict)

    def admit(self, going: Sequence[Contender], state: State) -> list[Contender]:
        """Return the contenders within their triggers' shares; beyond it, a trigger is not read."""
        if not self.shares:
            return list(going)
        return [each for each in going if self._may_go(each, state)]

    def _may_go(self, contender: Contender, state: State) -> bool:
        trigger, place = contender.delivery.trigger, contender.delivery.place
        share = self.shares.get(trigger)
        if share is None:
            return True
        admitted = self._admitted.setdefault(trigger, set())
        if place not in admitted and len(admitted) >= share:
            state.enough.add(trigger)
            return False
        admitted.add(place)
        return True

    def count(self, settled: Iterable[Settled]) -> None:
        """Count outcomes that Redis has confirmed."""
        for outcome in settled if self.shares else ():
            trigger = outcome.delivery.trigger
            if outcome.delivery.place in self._admitted.get(trigger, ()):
                self.outcomes.setdefault(trigger, Counter())[outcome.name] += 1
