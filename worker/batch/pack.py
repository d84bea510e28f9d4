"""Pack deliveries into requests, one request at a time, from the ledger as it is by then.

Also the envelope: a template that makes the whole body of a request from its array of results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from segrelay.jsonnet.rendered import Asserted, Killed, Rendered, Result, Row, TemplateFailed
from segrelay.worker.batch.batch import Batch, Part, Request
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.read import skip_by_ledger
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Death
from segrelay.worker.core.ledger import judge, knowledge
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, Shaped, compact_json
from segrelay.worker.logs import log_bug

if TYPE_CHECKING:
    from segrelay.worker.adapters.jsonnet import ProcessRenderer


@dataclass(slots=True)
class RequestBuilder:
    """Collects the user objects of one request.

    Args:
        most: The largest number of user objects.
        room: The bytes that are left for them.
        root: The root options of the request: those of its first delivery, corrected.
        names: The digests and identifiers of its people, of whom no second user object may be
            added.
        is_full: True if it has no room for a further person.
    """

    most: int
    room: int
    root: Mapping[str, Any] = field(default_factory=dict)
    names: set[bytes | str] = field(default_factory=set)
    is_full: bool = False
    _users: int = 0
    _people: list[tuple[Delivery, ...]] = field(default_factory=list)
    _at: dict[bytes, int] = field(default_factory=dict)
    _records: dict[bytes, Record] = field(default_factory=dict)
    _closed: set[bytes] = field(default_factory=set)

    def holds(self, delivery: Delivery) -> bool:
        """Say whether the delivery's profile has a user object in this request."""
        return delivery.digest in self._at

    def add(self, delivery: Delivery, users: tuple[bytes, ...]) -> bool:
        """Add a delivery's own user objects to the request; returns whether they fit.

        The first delivery always fits: it is known not to be too large alone. Its root options are
        the request's. A delivery whose root options differ, because newer events changed them, is
        left for another request.
        """
        if self._people and delivery.sent.root != self.root:
            # Whatever comes behind it of the same person stays behind it.
            self.names |= delivery.names
            return False
        self.root = delivery.sent.root
        size = sum(map(len, users)) + len(users)
        if self._people and (self._users + len(users) > self.most or size > self.room):
            self.is_full = True
            return False
        self.room -= size
        self._users += len(users)
        self.is_full = self._users >= self.most
        self.names |= delivery.names
        self._at[delivery.digest] = len(self._people)
        delivery.users = users
        self._people.append((delivery,))
        return True

    def record(self, delivery: Delivery, known: Record) -> Record:
        """Return the ledger record of a profile as if this request was delivered already."""
        record = self._records.get(delivery.digest)
        if record is None:
            (first,) = self._people[self._at[delivery.digest]]
            record = self._records[delivery.digest] = first.delivered_in(known)
        return record

    def join(self, delivery: Delivery, size: int, known: Record) -> bool:
        """Add a delivery to its profile's user object; return whether it fits."""
        at = self._at[delivery.digest]
        members = self._people[at]
        pair = sorted((members[0], delivery), key=_MOMENT)
        api, users = delivery.loaded.api, [user for each in pair for user in each.sent.users]
        if delivery.digest in self._closed:
            return False
        is_fitting = size <= self.room and delivery.sent.root == self.root
        if not is_fitting or api.unite(users, self.root) is None:
            # What comes behind it goes behind it: newer data first would make its own stale.
            self._closed.add(delivery.digest)
            return False
        self.room -= size
        self._people[at] = (*members, delivery)
        self._records[delivery.digest] = delivery.delivered_in(known)
        return True

    def people(self) -> tuple[tuple[Delivery, ...], ...]:
        """Return the deliveries by person; shared user objects are united, oldest event first."""
        return tuple(self._united(each) if len(each) > 1 else each for each in self._people)

    def _united(self, shared: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
        oldest, *later = sorted(shared, key=_MOMENT)
        users = [user for each in (oldest, *later) for user in each.sent.users]
        united = oldest.loaded.api.unite(users, self.root)
        assert united is not None
        oldest.users = (compact_json(united),)
        return (oldest, *later)


_MOMENT: Final = attrgetter("header.moment")
FRAME_BYTES: Final = 200
"""The bytes that are kept free for what surrounds the users in a body."""


def reduce(batch: Batch, request: Request) -> Request:
    """Keep one delivery of a request of several for a probe, and take the others back.

    It is the one that has failed the least.
    """
    batch.done(request)
    deliveries = request.deliveries
    chosen = min(deliveries, key=lambda delivery: _failures(batch, delivery))
    others = [each for each in deliveries if each is not chosen]
    batch.put_back(others, is_refused=request.is_part)
    batch.trying |= set(request.triggers)
    chosen.users = tuple(map(compact_json, chosen.sent.users))
    probe = _request(batch, ((chosen,),), is_part=request.is_part)
    probe.send_time, probe.is_booked = request.send_time, True
    return probe


def next_request(batch: Batch) -> Request | None:
    """Pack the next request; None = all remaining deliveries are busy or have to wait.

    If a trigger waits because nothing of it went through, one delivery of it goes first, alone.
    A failed request keeps all other events of its profiles waiting, of every trigger, so few
    profiles should be in it.
    """

    def fewest_failures(part: Part) -> int:
        is_tried = part.alone in batch.state.waits
        return min((_failures(batch, d) for d in part.deliveries), default=0) if is_tried else 0

    moved = True
    while moved:
        moved = False
        for part in sorted(batch.parts, key=fewest_failures):
            request, in_trouble = _of_part(batch, part)
            for delivery in in_trouble:
                batch.add(delivery)
            if request:
                batch.forget_empty()
                return request
            moved = moved or bool(in_trouble)
    batch.forget_empty()
    return None


def _of_part(batch: Batch, part: Part) -> tuple[Request | None, list[Delivery]]:
    """Take a request's deliveries out of a part, and those whose triggers have to go alone."""
    alone, in_trouble = part.alone, list[Delivery]()
    if not part.deliveries or (alone and not batch.may_go(alone)):
        return None, in_trouble
    api = part.deliveries[0].loaded.api
    most = min(api.max_users, part.width or api.max_users)
    if alone in batch.state.waits:
        most = 1
        part.deliveries = deque(sorted(part.deliveries, key=lambda d: _failures(batch, d)))
    builder = RequestBuilder(most, api.max_bytes - FRAME_BYTES - len(part.root))
    # Where something went wrong, each delivery of a person goes by itself, until it is known
    # which one is at fault.
    is_in_trouble = bool(alone) and batch.goes_alone(alone)
    shares = not (part.is_refused or part.width or is_in_trouble)
    left: deque[Delivery] = deque()
    standings: dict[str, tuple[bool, bool]] = {}
    while part.deliveries and (shares or not builder.is_full):
        delivery = part.deliveries.popleft()
        trigger = delivery.trigger
        standing = standings.get(trigger)
        if standing is None:  # it does not change while one request is packed
            is_apart = not alone and batch.goes_alone(trigger)
            standing = standings[trigger] = (is_apart, batch.may_go(trigger))
        is_apart, may_go = standing
        if is_apart:
            in_trouble.append(delivery)
        elif not (may_go and _takes(batch, builder, delivery, shares=shares)):
            left.append(delivery)
    part.deliveries.extendleft(reversed(left))
    people = builder.people()
    request = _request(batch, people, is_part=part.is_refused) if people else None
    return request, in_trouble


def _takes(batch: Batch, builder: RequestBuilder, delivery: Delivery, *, shares: bool) -> bool:
    """Add a delivery that may go to a request; return whether it was added, or needs none."""
    if shares and builder.holds(delivery):
        return _joins(batch, builder, delivery)
    if builder.is_full or _is_blocked(batch, builder, delivery):
        return False
    users = _pack(batch, delivery)
    return not users or builder.add(delivery, users)


def _joins(batch: Batch, builder: RequestBuilder, delivery: Delivery) -> bool:
    """Add a delivery to the user object of its profile, if the ledger still lets it pass.

    It is judged as if what is in that object was delivered already, as in a later request.
    """
    if batch.state.waits_until_ms(delivery):
        return False
    try:
        record = builder.record(delivery, batch.records[delivery.digest])
        if judge(record, delivery.event):
            return False
        shaped = _corrected(batch, delivery, record)
        if isinstance(shaped, NotSendable) or len(shaped.users) > 1:
            return False
        delivery.sent = shaped
        return builder.join(delivery, len(compact_json(shaped.users[0])) + 1, record)
    except Exception as error:  # noqa: BLE001 - it goes by itself then
        log_bug(error, "uniting.failed", trigger=delivery.trigger)
        return False


def _failures(batch: Batch, delivery: Delivery) -> int:
    """Return how many requests failed with a delivery; the fewest make the best probe."""
    backoff = batch.state.backoffs.get(delivery.position)
    return backoff.failures if backoff else 0


def _is_blocked(batch: Batch, builder: RequestBuilder, delivery: Delivery) -> bool:
    own, names, busy = delivery.names, builder.names, batch.busy
    if own.isdisjoint(names) and own.isdisjoint(busy):
        return batch.state.waits_until_ms(delivery) > 0
    is_another = delivery.digest not in busy and delivery.digest not in names
    if is_another and delivery.position not in batch.sharing:
        batch.sharing.add(delivery.position)
        batch.state.identities_shared[delivery.trigger] += 1
    return True


def _pack(batch: Batch, delivery: Delivery) -> tuple[bytes, ...] | None:
    """Ask the ledger again, correct the body and encode it; None = nothing is left to send."""
    if skip_by_ledger(delivery, batch):
        return None
    try:
        shaped = _corrected(batch, delivery, batch.records[delivery.digest])
        if isinstance(shaped, NotSendable):
            batch.not_sendable(delivery, shaped)
            return None
        users = tuple([compact_json(user) for user in shaped.users])
    except Exception as error:  # noqa: BLE001 - it costs this one delivery
        message = log_bug(error, "packing.failed", trigger=delivery.trigger)
        batch.fail(delivery, Death.INVALID, message)
        return None
    largest = delivery.loaded.api.max_bytes - FRAME_BYTES
    if sum(map(len, users)) > largest:
        message = f"Alone it has more than the {largest:,} bytes that a request may have."
        batch.fail(delivery, Death.TOO_LARGE, message)
        return None
    delivery.sent = shaped
    return users


def _corrected(batch: Batch, delivery: Delivery, record: Record) -> Shaped | NotSendable:
    """Return the body, corrected by the newer facts in a record."""
    # A repair carries the profile of an older event, so all that the ledger knows is newer.
    event = delivery.event
    if event.header.repair:
        event = event._replace(header=event.header._replace(time_us=0))
    newer = knowledge(record, event, batch.drain.numbers.slugs)
    trigger = delivery.loaded
    return trigger.api.correct(delivery.shaped, delivery.header, trigger.rules, newer)


def _request(batch: Batch, people: tuple[tuple[Delivery, ...], ...], *, is_part: bool) -> Request:
    first = people[0][0]
    users = [user for person in people for user in person[0].users]
    request = Request(
        people,
        first.sent.url or first.loaded.rules.url,
        first.loaded.api.assemble(users, first.sent.root),
        len(users),
        tuple(dict.fromkeys([each.trigger for person in people for each in person])),
        is_part,
    )
    busy, backoffs = batch.busy, batch.state.backoffs
    for delivery in request.deliveries:
        busy |= delivery.names
        delivery.attempts = _failures(batch, delivery) + 1 if backoffs else 1
    batch.trying |= batch.state.waits.keys() & set(request.triggers)
    return request


async def put_in_envelope(request: Request, renderer: ProcessRenderer) -> str:
    """Make the whole body of a request by its envelope; return why there is none, or "".

    A template that may end the process is rendered in another one.
    """
    trigger = request.trigger
    if trigger.envelope is None:
        return ""
    row = row_of(request.body, trigger.settings)
    result: Result | Killed | None = renderer.render_safely(trigger.envelope, trigger.engine, row)
    if result is None:
        found = await renderer.render(trigger.envelope, trigger.engine, [row], isolated=True)
        result = found[0] if found else None
    match result:
        case Rendered(body) if body[:1] in (b"{", b"["):
            request.body = body
            return ""
        case Asserted(message) | TemplateFailed(message):
            return f"{trigger.envelope.name}: {normalise_message(message)}"
        case Rendered():
            return f"{trigger.envelope.name} yields neither an object nor an array."
        case _:
            return f"{trigger.envelope.name} does not come to an end."


def row_of(array: bytes, settings: Mapping[str, Any]) -> Row:
    """Return the row that the template of an envelope renders: the array, as `results`."""
    return Row(b'{"results":' + array + b',"segment_events":[{}]}', settings)
