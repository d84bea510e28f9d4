"""Pack parcels into requests, one request at a time, from the ledger as it is by then.

A request while it is packed: the parcels that it carries, and the room that is left in it.

Envelopes: templates that make the whole body of a request from its array of results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from segrelay.jsonnet.rendered import Asserted, Killed, Rendered, Result, Row, TemplateFailed
from segrelay.worker.batch.batch import Batch, Part
from segrelay.worker.batch.delivery import Packed, Parcel, Request
from segrelay.worker.batch.judge import skip_by_ledger
from segrelay.worker.batch.render import RowRenderer
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Death, Direction
from segrelay.worker.core.compact import compact_json
from segrelay.worker.core.ledger import judge, knowledge
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.logs import log_bug


@dataclass(slots=True)
class RequestBuilder:
    """Collects the user objects of one request.

    Args:
        most: The largest number of user objects.
        room: The bytes that are left for them.
        root: The root options of the request: those of its first parcel, corrected.
        names: Profiles and identifiers of the people of whom no further user object is added.
        is_full: No further person has room.
    """

    most: int
    room: int
    root: Mapping[str, Any] = field(default_factory=dict)
    names: set[bytes | str] = field(default_factory=set)
    is_full: bool = False
    _users: int = 0
    _packed: list[Packed] = field(default_factory=list)
    _at: dict[bytes, int] = field(default_factory=dict)
    _records: dict[bytes, Record] = field(default_factory=dict)
    _closed: set[bytes] = field(default_factory=set)

    def holds(self, parcel: Parcel) -> bool:
        """Say whether the parcel's profile has a user object in this request."""
        return parcel.digest in self._at

    def add(self, parcel: Parcel, users: tuple[bytes, ...]) -> bool:
        """Add a parcel's own user objects to the request; returns whether they fit.

        The first parcel always fits: it is known not to be too large alone. Its root options are
        the request's. A parcel of which something newer has made other root options untrue goes in
        a request of its own.
        """
        if self._packed and parcel.sent.root != self.root:
            # Whatever comes behind it of the same person stays behind it.
            self.names |= parcel.names
            return False
        self.root = parcel.sent.root
        size = sum(map(len, users)) + len(users)
        if self._packed and (self._users + len(users) > self.most or size > self.room):
            self.is_full = True
            return False
        self.room -= size
        self._users += len(users)
        self.is_full = self._users >= self.most
        self.names |= parcel.names
        self._at[parcel.digest] = len(self._packed)
        self._packed.append(Packed((parcel,), users))
        return True

    def record(self, parcel: Parcel, known: Record) -> Record:
        """Return the ledger record of a profile as if this request was delivered already."""
        record = self._records.get(parcel.digest)
        if record is None:
            (first,) = self._packed[self._at[parcel.digest]].members
            record = self._records[parcel.digest] = first.delivered_in(known)
        return record

    def join(self, parcel: Parcel, size: int, known: Record) -> bool:
        """Add a parcel to its profile's user object; return whether it fits."""
        at = self._at[parcel.digest]
        members = self._packed[at].members
        pair = sorted((members[0], parcel), key=_event_time)
        api, users = parcel.route.api, [user for p in pair for user in p.sent.users]
        if parcel.digest in self._closed:
            return False
        is_fitting = size <= self.room and parcel.sent.root == self.root
        if not is_fitting or api.unite(users, self.root) is None:
            # What comes behind it goes behind it: newer data first would make its own stale.
            self._closed.add(parcel.digest)
            return False
        self.room -= size
        self._packed[at] = Packed((*members, parcel), ())
        self._records[parcel.digest] = parcel.delivered_in(known)
        return True

    def packed(self) -> tuple[Packed, ...]:
        """Return the user objects; those that are shared are united now, oldest event first."""
        return tuple(self._united(each) if each.is_shared else each for each in self._packed)

    def _united(self, shared: Packed) -> Packed:
        members = sorted(shared.members, key=_event_time)
        users = [user for parcel in members for user in parcel.sent.users]
        united = members[0].route.api.unite(users, self.root)
        assert united is not None
        return Packed(tuple(members), (compact_json(united),))


def _event_time(parcel: Parcel) -> tuple[int, bool]:
    fact = parcel.fact
    return fact.time_us, fact.direction is Direction.EXIT


FRAME_BYTES: Final = 200
"""The bytes that are kept free for what surrounds the users in a body."""
SMALL_SHARE: Final = 4
"""The fraction (1/4) of its capacity below which a request is small."""


@dataclass(slots=True)
class Packer:
    """Makes requests from the parcels of a batch, one after the other.

    If a trigger waits because nothing of it went through, one delivery of it goes first, alone.
    A failed request keeps all other events of its profiles waiting, of every trigger, so few
    profiles should be in it.

    A small request waits if more could join it: what is blocked now by a request that is under
    way, or what the next batch will read.

    Args:
        is_patient: So much was read at once that small requests wait for others to share them.
    """

    batch: Batch
    is_patient: bool = False
    _has_packed: bool = False
    _sharing: set[Parcel] = field(default_factory=set)

    def lose_patience(self) -> None:
        """Stop keeping small requests waiting, because one that is under way takes too long."""
        self.is_patient = False

    def reduce(self, request: Request, avoid: str) -> Request:
        """Keep one delivery of a request, for a probe, and take the others back.

        Args:
            request: Of one trigger; has more than one.
            avoid: The place of the delivery that failed last as a probe; another one is preferred.
        """
        self.batch.done(request)
        parcels = request.parcels
        chosen = next((p for p in parcels if p.delivery.place != avoid), parcels[0])
        others = [parcel for parcel in parcels if parcel is not chosen]
        self.batch.put_back(others, is_refused=request.is_part)
        self.batch.trying |= set(request.triggers)
        users = tuple(map(compact_json, chosen.sent.users))
        return self._request((Packed((chosen,), users),), is_part=request.is_part)

    def next_request(self, *, may_leave: bool = False) -> Request | None:
        """Pack the next request; None = all remaining parcels are busy or have to wait.

        Args:
            may_leave: Another batch follows, which will read again what this one leaves.
        """
        moved = True
        while moved:
            moved = False
            for part in sorted(self.batch.parts, key=self._fewest_failures):
                if self._would_be_small(part, may_leave=may_leave):
                    continue
                request, in_trouble = self._of_part(part)
                for parcel in in_trouble:
                    self.batch.add(parcel)
                if request:
                    self._has_packed, part.is_due = True, False
                    self.batch.forget_empty()
                    return request
                moved = moved or bool(in_trouble)
        self.batch.forget_empty()
        return None

    def _would_be_small(self, part: Part, *, may_leave: bool) -> bool:
        """Say whether a part waits for more parcels; the first request of a batch never waits."""
        if not (self.is_patient and part.parcels and part.is_ordinary):
            return False
        busy = self.batch.busy
        blocked = sum(not p.names.isdisjoint(busy) for p in part.parcels) if busy else 0
        free = len(part.parcels) - blocked
        if free * SMALL_SHARE >= part.parcels[0].route.api.max_users:
            return False
        return blocked > 0 or (may_leave and self._has_packed and not part.is_due)

    def _of_part(self, part: Part) -> tuple[Request | None, list[Parcel]]:
        """Take a request's parcels out of a part, and those whose triggers have to go alone."""
        alone, in_trouble = part.kind.alone, list[Parcel]()
        if not part.parcels or (alone and not self.batch.may_go(alone)):
            return None, in_trouble
        api = part.parcels[0].route.api
        most = min(api.max_users, part.kind.width or api.max_users)
        if alone in self.batch.state.waits:
            most = 1
            part.parcels = deque(sorted(part.parcels, key=self._failures))
        builder = RequestBuilder(most, api.max_bytes - FRAME_BYTES - len(part.kind.root))
        shares = self.batch.may_share(part)
        left: deque[Parcel] = deque()
        while part.parcels and (shares or not builder.is_full):
            parcel = part.parcels.popleft()
            if not alone and self.batch.goes_alone(parcel.delivery.trigger):
                in_trouble.append(parcel)
            elif not self._takes(builder, parcel, shares=shares):
                left.append(parcel)
        part.parcels.extendleft(reversed(left))
        loaded = builder.packed()
        request = self._request(loaded, is_part=part.is_refused) if loaded else None
        return request, in_trouble

    def _takes(self, builder: RequestBuilder, parcel: Parcel, *, shares: bool) -> bool:
        """Add a parcel to a request; returns whether it was added, or settled without a request."""
        if shares and builder.holds(parcel):
            return self._joins(parcel, builder)
        may_go = not builder.is_full and self.batch.may_go(parcel.delivery.trigger)
        if not may_go or self._is_blocked(parcel, builder.names):
            return False
        users = self._pack(parcel)
        return not users or builder.add(parcel, users)

    def _joins(self, parcel: Parcel, builder: RequestBuilder) -> bool:
        """Add a parcel to the user object of its profile, if the ledger still lets the parcel pass.

        It is judged as if what is in that object was delivered already, as in a later request.
        """
        state = self.batch.state
        if not self.batch.may_go(parcel.delivery.trigger) or state.waits_until_ms(parcel.delivery):
            return False
        try:
            record = builder.record(parcel, state.records[parcel.digest])
            if judge(record, parcel.fact):
                return False
            shaped = self._shaped(parcel, record)
            if isinstance(shaped, NotSendable) or len(shaped.users) > 1:
                return False
            parcel.correct(shaped)
            return builder.join(parcel, len(compact_json(shaped.users[0])) + 1, record)
        except Exception as error:  # noqa: BLE001 - it goes by itself then
            log_bug(error, "uniting.failed", trigger=parcel.route.trigger)
            return False

    def _fewest_failures(self, part: Part) -> int:
        """Return the sort key of a part: if its trigger waits, the fewest failures of a parcel."""
        if part.kind.alone not in self.batch.state.waits:
            return 0
        return min(map(self._failures, part.parcels), default=0)

    def _failures(self, parcel: Parcel) -> int:
        """Return how many requests of a parcel failed; one with few failures is the best probe."""
        backoff = self.batch.state.backoffs.get(parcel.delivery.place)
        return backoff.failures if backoff else 0

    def _is_blocked(self, parcel: Parcel, names: Iterable[bytes | str]) -> bool:
        own = parcel.names
        if not own.isdisjoint(names) or not own.isdisjoint(self.batch.busy):
            if parcel.digest not in self.batch.busy and parcel.digest not in names:
                self._share(parcel)
            return True
        return self.batch.state.waits_until_ms(parcel.delivery) > 0

    def _pack(self, parcel: Parcel) -> tuple[bytes, ...] | None:
        """Ask the ledger again, correct the body and encode it; None = nothing is left to send."""
        if not self._is_current(parcel):
            return None
        try:
            return self._corrected(parcel)
        except Exception as error:  # noqa: BLE001 - it costs this one delivery
            message = log_bug(error, "packing.failed", trigger=parcel.route.trigger)
            self._not_sendable(parcel, NotSendable(Death.INVALID, message))
            return None

    def _is_current(self, parcel: Parcel) -> bool:
        settled = skip_by_ledger(parcel.delivery, parcel.fact, self.batch.state.records)
        if settled:
            self.batch.skipped.append(settled)
        return settled is None

    def _corrected(self, parcel: Parcel) -> tuple[bytes, ...] | None:
        shaped = self._shaped(parcel, self.batch.state.records[parcel.digest])
        if isinstance(shaped, NotSendable):
            self._not_sendable(parcel, shaped)
            return None
        users = tuple(compact_json(user) for user in shaped.users)
        largest = parcel.route.api.max_bytes - FRAME_BYTES
        if sum(map(len, users)) > largest:
            message = f"Alone it has more than the {largest:,} bytes that a request may have."
            self._not_sendable(parcel, NotSendable(Death.TOO_LARGE, message))
            return None
        parcel.correct(shaped)
        return users

    def _shaped(self, parcel: Parcel, record: Record) -> Shaped | NotSendable:
        """Return the body, corrected by the newer facts in a record."""
        # A repair carries the profile of an older event, so all that the ledger knows is newer.
        fact = parcel.fact._replace(time_us=0) if parcel.fact.repair else parcel.fact
        newer = knowledge(record, fact, self.batch.numbers.slugs)
        route, header = parcel.route, parcel.delivery.header
        return route.api.correct(parcel.shaped, header, route.rules, newer)

    def _not_sendable(self, parcel: Parcel, why: NotSendable) -> None:
        template = parcel.route.template
        content_hash = template.content_hash if template else ""
        self.batch.not_sendable(parcel.delivery, why, content_hash, parcel.body)

    def _request(self, packed: tuple[Packed, ...], *, is_part: bool) -> Request:
        parcels = [parcel for p in packed for parcel in p.members]
        first = parcels[0]
        users = [user for p in packed for user in p.users]
        for parcel in parcels:
            self.batch.busy |= parcel.names
        triggers = tuple(dict.fromkeys(parcel.delivery.trigger for parcel in parcels))
        self.batch.trying |= self.batch.state.waits.keys() & set(triggers)
        return Request(
            packed,
            first.sent.url or first.route.rules.url,
            first.route.api.assemble(users, first.sent.root),
            len(users),
            triggers,
            is_part,
        )

    def _share(self, parcel: Parcel) -> None:
        """Count, once, that this profile shares an identifier with another profile."""
        if parcel not in self._sharing:
            self._sharing.add(parcel)
            self.batch.state.identities_shared[parcel.delivery.trigger] += 1


async def enveloped(request: Request, renderer: RowRenderer) -> Request | str:
    """Return a request with its whole body, or the reason why its template makes none.

    A template that may end the process is rendered in another one.
    """
    route = request.parcels[0].route
    if route.envelope is None:
        return request
    rows = [row_of(request.body, route.settings)]
    safe = await renderer.render_safely(route.envelope, route.engine, rows, compares=True)
    result: Result | Killed | None = safe[0] if safe else None
    if result is None:
        found = await renderer.render(route.envelope, route.engine, rows, isolated=True)
        result = found[0] if found else None
    match result:
        case Rendered(body) if body[:1] in (b"{", b"["):
            return replace(request, body=body)
        case Asserted(message) | TemplateFailed(message):
            return f"{route.envelope.name}: {normalise_message(message)}"
        case Rendered():
            return f"{route.envelope.name} yields neither an object nor an array."
        case _:
            return f"{route.envelope.name} does not come to an end."


def row_of(array: bytes, settings: Mapping[str, Any]) -> Row:
    """Return the row that the template of an envelope renders: the array, as `results`."""
    return Row(b'{"results":' + array + b',"segment_events":[{}]}', settings)
