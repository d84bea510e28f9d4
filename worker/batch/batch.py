"""A batch and its requests: the two objects that the steps of a drain share.

Also the response streams: what became of a delivery, as a record that Lytics' collect API takes.
A record is at most 16 KB in a batch and holds no objects within arrays (Lytics' documentation). So
the body of an answer is told as JSON up to half of that; a longer one is a text that is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from segrelay.worker.batch.delivery import Delivery, LoadedTrigger
from segrelay.worker.batch.partition import Drain, Intent, Settlement, State
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import LIVE, Death, Skip
from segrelay.worker.core.gate import Closed, LaneKind, SendTime
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import Answer, NoAnswer, NotSendable
from segrelay.worker.errors import PayloadRefused


@dataclass(slots=True, eq=False)
class Request:
    """One HTTP request: users of one destination, of different profiles.

    Args:
        people: The deliveries, person by person. Those of one person share a user object, and the
            first of them has it.
        triggers: The triggers whose deliveries it carries.
        is_part: True for a part of a body that was refused.

    Attributes:
        intent: The intent that is written before the request.
        send_time: The send time that was booked last.
        is_booked: True while `send_time` belongs to the request: False once it was given back.
        closed: The reason why no send time could be had, if the gate said so.
        intent_ms: The time when its intent was written, by Redis' clock.
        may_be_out: True if bytes of it may have been sent.
        begun_seconds: Its begin by the drain's clock.
        elapsed_seconds: The time until its answer, or until there could be none.
    """

    people: tuple[tuple[Delivery, ...], ...]
    url: str
    body: bytes
    user_count: int
    triggers: tuple[str, ...]
    is_part: bool = False
    deliveries: tuple[Delivery, ...] = field(init=False)
    intent: Intent = field(init=False)
    send_time: SendTime = field(init=False)
    answer: Answer | NoAnswer = field(init=False)
    is_booked: bool = False
    closed: Closed | None = None
    intent_ms: int = 0
    may_be_out: bool = False
    begun_seconds: float = 0.0
    elapsed_seconds: float = 0.0

    def __post_init__(self) -> None:
        """List the deliveries."""
        self.deliveries = tuple(delivery for person in self.people for delivery in person)

    @property
    def trigger(self) -> LoadedTrigger:
        """Return the trigger whose address, credentials and method the request has."""
        return self.deliveries[0].loaded

    @property
    def answered(self) -> Answer | None:
        """Return the answer, if one came."""
        return self.answer if isinstance(self.answer, Answer) else None


@dataclass(slots=True, eq=False)
class Part:
    """Deliveries that may share a request, in their order.

    Args:
        alone: The trigger, if its deliveries share no request with others; "" = they may.
        root: The root options of their bodies.
        width: The number of users that a request may have; 0 = as many as the destination takes.
        is_refused: True if they were in a body that was refused.
        is_taken_back: True if they were in a request.
    """

    alone: str
    root: bytes
    width: int = 0
    deliveries: deque[Delivery] = field(default_factory=deque)
    is_refused: bool = False
    is_taken_back: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """The deliveries that were read at once, from the ledger's verdict to the settlement.

    It keeps what is still to be sent in parts: deliveries that may share a request, or what is left
    of one that was taken back. Whatever shares API, URL and root options shares a part, of
    whichever trigger. A trigger that is in trouble goes alone, so that it costs the others nothing.

    It is the only writer of the outcomes, waits and dead letters, a script at a time.

    Args:
        kind: The kind of the lanes that it was read from.
        is_last: True if nothing was left to read behind it.
        skipped: Deliveries that need no request, until they are settled.
        failed: Deliveries that can't be sent, until they are settled.
        stopped: The reasons why only another version of segrelay can go on, by trigger.
        parts: The parts to send. Parts that were taken back come first, then the narrowest.
        apart: Triggers of which a body was refused. They share no further request of the batch.
        busy: Profiles, and identifiers by which the destination knows them, of which a request is
            in flight.
        sharing: Deliveries that had to wait since their profile shares an identifier with another.
        trying: Triggers that wait, while the one delivery that tries them is in flight.
        suspects: The requests whose one delivery was refused, by trigger.
        taken_seconds: The time at which a request was last accepted, by trigger and the drain's
            clock.
        settled: The number of its deliveries that have got their outcome.
        records: Ledgers of its profiles, as the next settlement writes them.
        closed: The last `Closed` that the gate gave for a trigger; None = it gave none.
    """

    state: State
    kind: LaneKind = LIVE
    deliveries: Sequence[Delivery] = ()
    is_last: bool = False
    skipped: list[Delivery] = field(default_factory=list)
    failed: list[Delivery] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    apart: set[str] = field(default_factory=set)
    busy: set[bytes | str] = field(default_factory=set)
    sharing: set[str] = field(default_factory=set)
    trying: set[str] = field(default_factory=set)
    suspects: dict[str, list[Request]] = field(default_factory=dict)
    taken_seconds: dict[str, float] = field(default_factory=dict)
    settled: int = 0
    records: dict[bytes, Record] = field(default_factory=dict)
    closed: Closed | None = None
    _fresh: dict[tuple[int, str, str, bytes, int], Part] = field(default_factory=dict)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def drain(self) -> Drain:
        """Return the drain that works the batch off."""
        return self.state.drain

    def left(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Return the deliveries whose triggers can go on; the others stay in their streams."""
        return [d for d in deliveries if d.trigger not in self.stopped]

    def add(self, delivery: Delivery) -> Part:
        """Add a rendered delivery to its part.

        Narrow parts come first, so that a halving comes to its end.
        """
        traits = self._traits(delivery)
        part = self._fresh.get(traits)
        if part is None:
            part = self._fresh[traits] = Part(*traits[2:])
        if not part.deliveries:
            width = part.width or math.inf
            wider = (
                at
                for at, other in enumerate(self.parts)
                if not other.is_taken_back and (other.width or math.inf) > width
            )
            self.parts.insert(next(wider, len(self.parts)), part)
        part.deliveries.append(delivery)
        return part

    def _traits(self, delivery: Delivery) -> tuple[int, str, str, bytes, int]:
        """Return the properties in which all deliveries of a part are equal.

        It is the identity of their API (triggers whose APIs are equal have the same object), their
        URL, and the first fields of their `Part`.
        """
        trigger, shaped = delivery.trigger, delivery.shaped
        backoffs = self.state.backoffs
        backoff = backoffs.get(delivery.position) if backoffs else None
        root = orjson.dumps(shaped.root, option=orjson.OPT_SORT_KEYS) if shaped.root else b"{}"
        url = shaped.url or delivery.loaded.rules.url
        alone = trigger if backoff or self.goes_alone(trigger) else ""
        return id(delivery.loaded.api), url, alone, root, backoff.width if backoff else 0

    def goes_alone(self, trigger: str) -> bool:
        """Say whether a trigger's deliveries share no request with those of other triggers."""
        return trigger in self.apart or self.state.is_preview(trigger)

    def may_go(self, trigger: str) -> bool:
        """Say whether a request of a trigger may be made now."""
        return trigger not in self.trying and self.state.is_due(trigger)

    def split(self, request: Request) -> None:
        """Take a request back as two parts, which are sent before all else.

        If it carries several triggers, they are separated before one of them is halved.
        """
        deliveries = sorted(request.deliveries, key=lambda delivery: delivery.trigger)
        names = [delivery.trigger for delivery in deliveries]
        middle = len(deliveries) // 2
        borders = [at for at in range(1, len(names)) if names[at] != names[at - 1]]
        at = min(borders, key=lambda border: abs(border - middle)) if borders else middle
        self.put_back(deliveries[at:], is_refused=True)
        self.put_back(deliveries[:at], is_refused=True)

    def again(self, request: Request) -> None:
        """Take a request back, to be sent again without being split."""
        self.put_back(request.deliveries, is_refused=request.is_part)

    def put_back(self, deliveries: Sequence[Delivery], *, is_refused: bool) -> None:
        """Take deliveries back, to be sent before all else."""
        alone, *others = dict.fromkeys(delivery.trigger for delivery in deliveries)
        *_, root, _ = self._traits(deliveries[0])
        part = Part("" if others else alone, root, is_refused=is_refused, is_taken_back=True)
        part.deliveries.extend(deliveries)
        self.parts.insert(0, part)

    def fail(
        self, delivery: Delivery, reason: Death, message: str, answer: Answer | None = None
    ) -> None:
        """Remember a delivery that can't be made until it is settled."""
        self.failed.append(delivery.fail(reason, message, answer))

    def not_sendable(self, delivery: Delivery, why: NotSendable) -> None:
        """Remember a delivery of which nothing valid can be sent until it is settled."""
        match why.reason:
            case Skip() as reason:
                remark = f"{reason.value}: {why.message}"
                self.skipped.append(delivery.skip(reason, remark))
            case Death() as reason:
                self.fail(delivery, reason, why.message)

    def done(self, request: Request) -> None:
        """Free the profiles of a request that came to its end."""
        busy = self.busy
        for delivery in request.deliveries:
            busy -= delivery.names
            delivery.users = ()
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
            part.deliveries = deque(d for d in part.deliveries if d.trigger not in triggers)
        self.forget_empty()

    def forget_empty(self) -> None:
        """Remove the parts that hold no more deliveries."""
        self.parts = [part for part in self.parts if part.deliveries]

    async def settle_unsent(self) -> None:
        """Settle deliveries that need no request."""
        skipped, self.skipped = self.skipped, []
        failed, self.failed = self.failed, []
        settled = [*skipped, *await self.dead(failed)]
        if settled:
            await self.write(Settlement(settled=settled))

    async def write(self, settlement: Settlement, *, tried: Iterable[bytes] = ()) -> int:
        """Write a settlement with ledgers; return the intent's end in doubt (ms), or 0.

        Ledgers are written as they are once all settlements before this one are written, so that
        none goes back.

        Args:
            settlement: The settlement without its ledgers, which are added.
            tried: The digests of the profiles of a request without a sure answer.
        """
        told = dict.fromkeys([d.digest for d in settlement.settled if d.tells])
        async with self._settling:
            records = self.records
            whole = replace(
                settlement,
                ledgers={digest: records[digest] for digest in (*told, *tried)},
                responses=self.drain.responses.of(settlement, self.state.now_ms()),
            )
            end_ms = await self.drain.partition.settle(whole)
        self.settled += len(settlement.settled)
        state = self.state
        for delivery in settlement.settled:
            delivery.free_memory()
            state.tally.count(delivery.outcome)
            state.backoffs.pop(delivery.position, None)
        return end_ms

    async def dead(self, failed: Sequence[Delivery]) -> list[Delivery]:
        """Make the dead letters of deliveries that failed, and return those that may die.

        What exceeds a streak of one cause stays in its stream.
        """
        groups: dict[tuple[str, str], list[Delivery]] = {}
        for delivery in failed:
            assert delivery.failure is not None
            groups.setdefault((delivery.trigger, delivery.failure.cause), []).append(delivery)
        dead: list[Delivery] = []
        for (trigger, _), group in groups.items():
            failure, may = group[0].failure, len(group)
            if failure and failure.reason.effects.in_a_row:
                may = await self.drain.streaks.may_die(trigger, failure, may)
            now_ms = self.state.now_ms()
            for delivery in group[:may]:
                delivery.die(keys=self.drain.partition.keys, now_ms=now_ms)
            dead += group[:may]
            if may < len(group):
                self.leave(trigger)
        return dead

    async def stop(self) -> None:
        """Pause the triggers that can't go on; their deliveries stay in their streams."""
        for trigger, reason in self.stopped.items():
            await self.drain.streaks.stop(trigger, reason)
            self.leave(trigger)


_TEXT_CHARACTERS: Final = 500
_FIELDS_AT_MOST: Final = 8
"""The most values in the `origin` of a record, of at most 500 characters each."""
_HEADERS_AT_MOST: Final = 8
BODY_BYTES: Final = 8_000
"""The most bytes of an answer's body in a record, so that Lytics accepts the record."""
_DEEPEST: Final = 100
"""The most levels of a body that is reported as JSON; a deeper body is reported as text."""
REQUEST_BYTES: Final = 64_000
"""The most bytes of an answer's body in all records of its request together."""
_QUOTES: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ResponseStream(NamedTuple):
    """The response stream of a trigger.

    Attributes:
        headers: The names of the answer's headers that its records have.
        fields: The names of the profile's fields that its records have; none = the identity alone.
    """

    name: str
    headers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Responses:
    """The response streams of triggers.

    Args:
        streams: The response streams, by trigger.
        identity: The configured identity field.
    """

    streams: Mapping[str, ResponseStream] = field(default_factory=dict)
    identity: str = ""

    def of(self, settlement: Settlement, now_ms: int) -> tuple[bytes, ...]:
        """Return the records about a settlement, each as JSON: its stream's name and the record."""
        if not self.streams:
            return ()
        told = [
            (stream, delivery)
            for delivery in settlement.settled
            if (stream := self.streams.get(delivery.trigger))
            and (delivery.reason is None or delivery.reason.effects.is_reported)
        ]
        room = REQUEST_BYTES // max(1, len(told))
        return tuple(
            orjson.dumps([stream.name, {"origin": origin, "response": response}])
            for stream, delivery in told
            if (origin := self._origin(delivery.profile, stream.fields))
            for response in (_response(delivery, stream, min(room, BODY_BYTES), now_ms),)
        )

    def _origin(self, packed: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
        """Return the named fields of a profile, or its identity; {} where it can't be read."""
        try:
            profile = orjson.loads(decode_profile(packed))
        except (PayloadRefused, orjson.JSONDecodeError):
            return {}
        if not isinstance(profile, dict):
            return {}
        named = {name: profile.get(name) for name in fields[:_FIELDS_AT_MOST]}
        found = {name: value for name, value in named.items() if _is_plain(value)}
        if not found:
            name, value = self.identity, profile.get(self.identity)
            if name == "id":
                name, value = "_id", profile.get("_id") or profile.get("payload_id")
            found = {name: value} if _is_plain(value) else {}
        return {
            name: value[:_TEXT_CHARACTERS] if isinstance(value, str) else value
            for name, value in found.items()
        }


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _response(delivery: Delivery, stream: ResponseStream, room: int, now_ms: int) -> dict[str, Any]:
    """Return what is told of a delivery; of its answer's body, at most `room` bytes."""
    header, answer, failure = delivery.header, delivery.answer, delivery.failure
    response: dict[str, Any] = {
        "outcome": delivery.outcome,
        "trigger": delivery.trigger,
        "audience": header.audience[:_TEXT_CHARACTERS],
        "event": header.direction.value,
        "event_time": _shown(timedelta(microseconds=header.time_us)),
        "time": _shown(timedelta(milliseconds=now_ms)),
    }
    if delivery.reason:
        response["reason"] = delivery.reason.value
    if delivery.outcome == "dead" and failure:
        response["message"] = normalise_message(failure.message)
    if answer:
        headers = {
            name: text[:_TEXT_CHARACTERS]
            for name in stream.headers[:_HEADERS_AT_MOST]
            if (text := answer.headers.get(name))
        }
        response |= {"status": answer.status} | ({"headers": headers} if headers else {})
        response |= _told_body(answer, room) if answer.body else {}
    return response


def _told_body(answer: Answer, room: int) -> dict[str, Any]:
    """Return the body of an answer, as JSON if it is that, and whether something of it is cut."""
    is_cut = answer.truncated or len(answer.body) > room
    if not is_cut:
        with contextlib.suppress(orjson.JSONDecodeError, RecursionError):
            value = _flat(orjson.loads(answer.body))
            if len(orjson.dumps(value)) <= BODY_BYTES:
                return {"body": value}
    text = answer.body[:room].decode(errors="ignore" if is_cut else "replace")
    while (size := len(orjson.dumps(text))) > BODY_BYTES + _QUOTES:
        text, is_cut = text[: len(text) * BODY_BYTES // size], True
    return {"body": text} | ({"body_cut": True} if is_cut else {})


def _flat(value: Any, depth: int = 0) -> Any:
    """Return a value in which each array that holds objects or arrays is an object by positions.

    Raises:
        RecursionError: It has more levels than `_DEEPEST`.
    """
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return {name: _flat(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_flat(each, depth + 1) for each in value]
        if any(isinstance(each, dict | list) for each in inner):
            return {str(at): each for at, each in enumerate(inner)}
        return inner
    return value


def _shown(since: timedelta) -> str:
    return (EPOCH + since).isoformat().replace("+00:00", "Z")
