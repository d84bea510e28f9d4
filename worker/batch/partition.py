"""A drain, and its partition as it sees it: what it reads and writes, and what it knows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from segrelay.worker.batch.delivery import Delivery, LoadedTrigger
from segrelay.worker.contract.events import Header, decode_header, encode_headers
from segrelay.worker.contract.keys import REACHED_KEPT, split_stream_name
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.triggers import Scope, label
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.backoff import AfterFailure, Backoff, Wait, after_failure, longest_ms
from segrelay.worker.core.gate import Closed, LaneKind, Open, SendTime
from segrelay.worker.destinations.api import Sender

if TYPE_CHECKING:
    from segrelay.worker.adapters.jsonnet import ProcessRenderer
    from segrelay.worker.adapters.redis.gate import RedisGate
    from segrelay.worker.adapters.redis.partition import (
        RedisPartition,
        SystemClock,
        ThreadedLease,
    )
    from segrelay.worker.adapters.redis.shared_keys import RedisNumbers, RedisStreaks
    from segrelay.worker.batch.batch import Responses

SLICE_SECONDS: Final = 2.0
"""The seconds that a drain works before others get their turn."""
STOP_GRACE_SECONDS: Final = 2.5
"""The seconds that a request may go on after the signal to stop; then it is cut, and in doubt."""
BATCH_ENTRIES: Final = 2_000
"""The largest number of deliveries in a batch: a full request of 1,000 users for each direction."""


class ReadRange(NamedTuple):
    """A range to read: a number of entries of a stream behind an id ("" = its beginning)."""

    stream: str
    after_id: str
    most: int


class ReadEntries(NamedTuple):
    """The entries found in a range of a stream.

    Attributes:
        is_all: True if the stream ends with these entries.
    """

    entries: list[Delivery]
    is_all: bool


def trigger_at(position: str) -> str:
    """Return the trigger of the delivery at a position; "" where it stands for none."""
    return position.split("|")[1] if position else ""


@dataclass(frozen=True, slots=True)
class Intent:
    """The intent that is written before a request.

    Args:
        deliveries: All that the request carries, of whichever triggers: their positions
            (`lane|trigger|id`; "" = it stands for none and only holds others back) and headers.
        open_until_ms: Its end, if it is open (Redis' clock); 0 = the request is under way.
    """

    intent_id: str
    deliveries: tuple[tuple[str, Header], ...]
    open_until_ms: int = 0

    @property
    def triggers(self) -> tuple[str, ...]:
        """Return the names of the triggers whose deliveries the intent holds."""
        return tuple(dict.fromkeys(trigger_at(position) for position, _ in self.deliveries))

    def dumps(self) -> bytes:
        """Return the text that Redis keeps: a line for each delivery."""
        headers = encode_headers([header for _, header in self.deliveries])
        pairs = zip(self.deliveries, headers, strict=True)
        return b"\n".join([b"%b %b" % (at.encode(), header) for (at, _), header in pairs])

    @classmethod
    def loads(cls, intent_id: str, text: bytes, open_until_ms: int) -> Intent:
        """Read an intent from the text that `dumps` returned."""
        lines = [line.partition(b" ") for line in text.split(b"\n")]
        deliveries = tuple((at.decode(), decode_header(header)) for at, _, header in lines)
        return cls(intent_id, deliveries, open_until_ms)


class Hold(NamedTuple):
    """A hold: all entries of a stream up to `last_id` wait until `until_ms`, by Redis' clock.

    Attributes:
        edition: The edition of its trigger, see `LoadedTrigger.edition`; "" = not known.
    """

    last_id: str
    until_ms: int
    edition: str = ""


@dataclass(frozen=True, slots=True)
class TakenPartition:
    """The state of a partition that the holder of a new lease starts from.

    Args:
        now_ms: The time at which it was taken, by Redis' clock.
        streams: The names of the streams that are not empty.
        intents: The intents that are open, and those of a holder that vanished.
        rendering: The positions of deliveries that a vanished holder was rendering.
        waits: The waits of triggers, by name.
        backoffs: The backoffs of deliveries, by position.
        holds: The holds, by the stream's name.
        reached_up_to: The largest digest (hex) of a person to whom something was delivered that
            `settle` still records for `verify`; "" = there is no limit.
    """

    now_ms: int
    streams: tuple[str, ...]
    intents: tuple[Intent, ...]
    rendering: frozenset[str]
    waits: Mapping[str, Wait]
    backoffs: Mapping[str, Backoff]
    holds: Mapping[str, Hold]
    reached_up_to: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that the settling script writes at once.

    Args:
        settled: The deliveries to settle, each with its outcome.
        intent_id: The id of the request's intent; "" = no request was made.
        open_seconds: The time for which the intent stays open; 0 = it is closed.
        ledgers: The profiles' records at the moment of writing, by digest. A record is written if a
            request was made, or if a delivery that it tells of was still there.
        waits: The waits to write, by trigger; None = it waits no longer.
        backoffs: The backoffs to write, by position; those of deliveries that are gone are not
            kept.
        counts: Additions to further fields of `counts`.
        retried: Deliveries that have failed, and are tried again or settled as dead.
        retry_message: The reason why they failed, for a person.
        reached: For `verify`, by digest (hex) of each person to whom something was delivered: JSON
            of now (ms) and of the identifiers by which the destination knows the person.
    """

    settled: Sequence[Delivery] = ()
    intent_id: str = ""
    open_seconds: float = 0.0
    ledgers: Mapping[bytes, Record] = field(default_factory=dict)
    waits: Mapping[str, Wait | None] = field(default_factory=dict)
    backoffs: Mapping[str, Backoff] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    retried: Sequence[Delivery] = ()
    retry_message: str = ""
    reached: Mapping[str, bytes] = field(default_factory=dict)
    responses: Sequence[bytes] = ()


class Release(NamedTuple):
    """The result of giving a lease back.

    Attributes:
        due: True if some work may be done now.
        wake: The queue to wake on; "" = there is no work, or somebody was woken already.
    """

    released: bool
    due: bool
    wake: Literal["live", "backfill", ""]


ReadWants = Callable[[], Awaitable[tuple[Mapping[str, Scope], Mapping[str, str]]]]
"""A function that reads the scopes of triggers and their newest editions, by their names."""
_SHOWN_WAIT_SECONDS: Final = 0.05


@dataclass(slots=True)
class Stop:
    """The signal to stop: whether and when this process got it.

    Args:
        told_at_seconds: The time of the signal, by the drain's clock; 0 = it has not come.
    """

    told_at_seconds: float = 0.0

    @property
    def is_told(self) -> bool:
        """Say whether nothing new may begin."""
        return self.told_at_seconds > 0


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain of one partition: all that it works with.

    Args:
        triggers: The triggers, by name; streams of others are left alone.
        paused: Names of paused triggers and lanes of paused jobs; None = the destination is paused.
        looks: The gate's answers, `Open` or `Closed`, by trigger, as they were asked with the
            pauses.
        read_names: A function that reads the ledger's numbers anew, under the lease.
        read_wants: A function that reads the triggers' scopes and newest editions anew; called only
            where work waits, or a trigger seems not to want what was read.
        live_waits: A function that says whether live work waits elsewhere.
        responses: The triggers that have a stream for their outcomes.
        scopes: The scopes of triggers; what one does not want becomes a dead letter.
        in_flight: The largest number of requests under way.
        kinds: The kinds of lanes of which it may read: without a permit of the backfill lane, it
            may not read those.
        batch_entries: The largest number of deliveries in a batch.
    """

    partition: RedisPartition
    gate: RedisGate
    sender: Sender
    renderer: ProcessRenderer
    numbers: RedisNumbers
    streaks: RedisStreaks
    lease: ThreadedLease
    triggers: Mapping[str, LoadedTrigger]
    paused: frozenset[str] | None
    looks: Mapping[str, Open | Closed]
    read_names: Callable[[], Awaitable[None]]
    read_wants: ReadWants
    live_waits: Callable[[], Awaitable[bool]]
    clock: SystemClock
    jitter: random.Random
    stop: Stop
    responses: Responses
    scopes: Mapping[str, Scope]
    request_deadline_seconds: float
    late_seconds: float
    in_flight: int
    kinds: tuple[LaneKind, ...] = (LIVE, BACKFILL)
    batch_entries: int = BATCH_ENTRIES
    slice_seconds: float = SLICE_SECONDS

    @property
    def is_cut(self) -> bool:
        """Say whether requests have to end: the lease was lost, or the time to stop is over."""
        ends_at = self.stop.told_at_seconds + STOP_GRACE_SECONDS
        is_late = self.stop.is_told and self.clock.seconds() >= ends_at
        return is_late or not self.lease.is_valid()

    @property
    def is_over(self) -> bool:
        """Say whether nothing new may begin."""
        return self.stop.is_told or not self.lease.is_valid()


@dataclass(slots=True)
class Tally:
    """The counts of a drain, for Flower's result line and for the log.

    Args:
        ended: The reason why it ended before its time; "" = it did not.
        failed: True if it ended because the destination refused or failed, or the lease was lost.
    """

    delivered: int = 0
    skipped: int = 0
    dead: int = 0
    requests: int = 0
    waited_seconds: float = 0.0
    ended: str = ""
    failed: bool = False

    def count(self, outcome: str) -> None:
        """Count a delivery that has got its outcome: `delivered`, `skipped` or `dead`."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    @classmethod
    def of(cls, tallies: Collection[Tally]) -> Self:
        """Return the sum of several drains' tallies."""
        total = cls()
        for each in tallies:
            total.delivered += each.delivered
            total.skipped += each.skipped
            total.dead += each.dead
            total.requests += each.requests
            total.waited_seconds += each.waited_seconds
            total.failed |= each.failed
        total.ended = ", ".join(dict.fromkeys(each.ended for each in tallies if each.ended))
        return total

    @property
    def is_bad(self) -> bool:
        """Say whether the drain failed, or deliveries died: somebody has to look."""
        return self.failed or self.dead > 0

    def __str__(self) -> str:
        """Return the line that Flower shows."""
        line = (
            f"delivered {self.delivered:,}, skipped {self.skipped:,}, dead {self.dead:,}, "
            f"{plural(self.requests, 'request')}"
        )
        if self.waited_seconds >= _SHOWN_WAIT_SECONDS:
            line += f", waited {self.waited_seconds:.1f} s"
        return f"{line}; {self.ended}" if self.ended else line


@dataclass(slots=True)
class State:
    """The state that one holder of the lease keeps.

    It is changed only after Redis has confirmed the change.

    Args:
        offset_ms: The time by Redis' clock minus that by the drain's.
        suspects: The positions of deliveries that a vanished holder was rendering, until they are
            rendered.
        reached_up_to: The largest digest (hex) that is recorded, as in `TakenPartition`, or as this
            drain has found out since.
        streams: The names of the streams that are not empty, if they were read a moment ago and
            nobody has used them yet.
        scopes: The scopes by trigger; one that has none wants whatever stands in its streams.
        paused: Triggers of which nothing is read: a person, or they themselves, paused them; and
            lanes of jobs that a person paused.
        current: The triggers of which this drain works with the newest edition, with that.
        waiting: The end (ms) of the intents that a profile waits for, by digest, with the positions
            that may go on before it.
        shut: The triggers for which the gate is closed now: nothing of them is read.
        probing: The triggers whose next request will be a probe.
        yields: True if the gate lets nothing of a backfill lane pass, because live work waits for
            it.
        wait_set_ms: The times at which waits were set, by trigger.
        reached: The digests (hex) from which `reached_up_to` is found out.
        live_asked_seconds: The time of the last look for live work, by the drain's clock.
        live_is_due: True if live work was found to wait since streams were last read, here or
            elsewhere.
    """

    drain: Drain
    offset_ms: float
    waits: dict[str, Wait]
    backoffs: dict[str, Backoff]
    holds: dict[str, Hold]
    suspects: set[str]
    reached_up_to: str
    streams: tuple[str, ...] | None
    scopes: Mapping[str, Scope]
    paused: set[str]
    current: Mapping[str, str] = field(default_factory=dict)
    waiting: dict[bytes, list[tuple[int, frozenset[str]]]] = field(default_factory=dict)
    changed_holds: dict[str, Hold | None] = field(default_factory=dict)
    shut: set[str] = field(default_factory=set)
    probing: set[str] = field(default_factory=set)
    yields: bool = False
    wait_set_ms: dict[str, int] = field(default_factory=dict)
    reached: Sequence[str] = ()
    tally: Tally = field(default_factory=Tally)
    identities_shared: Counter[str] = field(default_factory=Counter)
    live_asked_seconds: float = 0.0
    live_is_due: bool = False

    @classmethod
    def of(
        cls,
        holding: TakenPartition,
        drain: Drain,
        newest: Mapping[str, str] = MappingProxyType({}),
    ) -> State:
        """Return the state of a new holder.

        What an older edition of a trigger has caused is over for a drain whose own edition is the
        one that was adopted last (`newest`). Another drain lets it wait: two that differ would else
        end each other's waits.
        """
        state = cls(
            drain,
            holding.now_ms - 1000 * drain.clock.seconds(),
            dict(holding.waits),
            dict(holding.backoffs),
            dict(holding.holds),
            set(holding.rendering),
            holding.reached_up_to,
            holding.streams,
            drain.scopes,
            {name for name, trigger in drain.triggers.items() if trigger.stopped},
        )
        state.paused |= drain.paused or set()
        state.adopt(newest)
        for name, wait in holding.waits.items():
            if state.is_former(name, wait.edition):
                state.waits[name] = Wait()
        for position, backoff in holding.backoffs.items():
            if state.is_former(trigger_at(position), backoff.edition):
                del state.backoffs[position]
        for name, hold in holding.holds.items():
            if state.is_former(split_stream_name(name)[1], hold.edition):
                state.set_hold(name, None)
        for intent in holding.intents:
            if intent.open_until_ms:
                state.keep_open(intent)
        return state

    def adopt(self, newest: Mapping[str, str]) -> None:
        """Find out of which triggers this drain works with the newest edition."""
        self.current = {
            name: trigger.edition
            for name, trigger in self.drain.triggers.items()
            if newest.get(name) == trigger.edition
        }

    def is_former(self, trigger: str, edition: str) -> bool:
        """Say whether an edition is older than that with which this drain works."""
        return bool(edition) and self.current.get(trigger, edition) != edition

    def is_ahead(self, until_ms: int) -> bool:
        """Say whether a time is still to come.

        What ends later than it can have been set has ended: Redis' clock was set back.
        """
        return 0 < until_ms - self.now_ms() <= longest_ms(self.drain.late_seconds)

    def end(self, reason: str, *, failed: bool) -> None:
        """Remember why the drain ends before all is done."""
        self.tally.ended, self.tally.failed = reason, failed

    def is_sampled(self, digest: bytes) -> bool:
        """Say whether a delivered profile is among those from which `verify` chooses."""
        return not self.reached_up_to or digest.hex() <= self.reached_up_to

    def reach(self, digests: Iterable[str]) -> None:
        """Remember the digests (hex) of people that Redis has recorded, until it records no more.

        It keeps a number of people, those with the smallest digests: once this drain has given it
        as many, no larger digest is kept.
        """
        if self.reached_up_to:
            return
        self.reached = sorted({*self.reached, *digests})[:REACHED_KEPT]
        if len(self.reached) == REACHED_KEPT:
            self.reached_up_to = self.reached[-1]

    def now_ms(self) -> int:
        """Return now by Redis' clock."""
        return round(1000 * self.drain.clock.seconds() + self.offset_ms)

    def keep_open(self, intent: Intent) -> None:
        """Make other events of an intent's profiles wait until its end."""
        positions: dict[bytes, list[str]] = {}
        for position, header in intent.deliveries:
            positions.setdefault(header.digest, []).append(position)
        for digest, own in positions.items():
            self.waiting.setdefault(digest, []).append((intent.open_until_ms, frozenset(own)))

    def waits_until_ms(self, delivery: Delivery) -> int:
        """Return until when a delivery has to step aside; 0 = it may go on."""
        if not self.waiting and not self.backoffs:
            return 0
        now_ms = self.now_ms()
        ends = [
            until_ms
            for until_ms, own in self.waiting.get(delivery.header.digest, ())
            if until_ms > now_ms and delivery.position not in own
        ]
        backoff = self.backoffs.get(delivery.position)
        if backoff and self.is_ahead(backoff.not_before_ms):
            ends.append(backoff.not_before_ms)
        return max(ends, default=0)

    def is_unwanted(self, delivery: Delivery) -> bool:
        """Say whether the trigger of a delivery has a scope that does not hold it.

        What can't be read is never unwanted.
        """
        scope, header = self.scopes.get(delivery.trigger), delivery.header
        return scope is not None and not header.is_broken and not scope.wants(header)

    async def judge_anew(self) -> None:
        """Read what triggers want, and which of their editions are the newest."""
        self.scopes, newest = await self.drain.read_wants()
        self.adopt(newest)

    def labels_of(self, triggers: Iterable[str]) -> list[str]:
        """Return the newest editions of triggers, as scripts know them."""
        return [label(name, self.current.get(name, "")) for name in triggers]

    def is_due(self, trigger: str) -> bool:
        """Say whether a trigger's streams may be read now."""
        wait = self.waits.get(trigger)
        is_closed = trigger in self.paused or trigger in self.shut
        return not is_closed and not (wait and self.is_ahead(wait.not_before_ms))

    def is_preview(self, trigger: str) -> bool:
        """Say whether one delivery of a trigger goes first, alone, to try if it goes through."""
        return trigger in self.waits or trigger in self.probing

    def obey(self, looks: Mapping[str, Open | Closed]) -> None:
        """Remember for which triggers the gate is closed, and which of them send a probe."""
        self.shut |= {name for name, look in looks.items() if isinstance(look, Closed)}
        self.probing -= looks.keys()
        self.probing |= {
            name for name, look in looks.items() if isinstance(look, Open) and look.probe
        }

    def after_failure(
        self,
        delivery: Delivery,
        send_time: SendTime,
        *,
        users: int,
        reason: str,
        others_are_taken: bool = False,
        is_refused: bool = False,
    ) -> AfterFailure:
        """Decide whether and when a delivery is tried again after its request failed."""
        wait = self.waits.get(delivery.trigger)
        outcome = after_failure(
            self.backoffs.get(delivery.position),
            wait,
            users=users,
            successes=send_time.successes.get(delivery.trigger, 0),
            now_ms=self.now_ms(),
            jitter=self.drain.jitter.random(),
            reason=reason,
            others_are_taken=others_are_taken,
            is_refused=is_refused,
            edition=self.drain.triggers[delivery.trigger].edition,
        )
        # A request that was under way when the trigger began to wait does not make it wait longer.
        fresh = wait and self.wait_set_ms.get(delivery.trigger, 0) >= send_time.at_ms
        return AfterFailure(outcome.backoff, wait) if fresh and outcome.wait else outcome

    def set_hold(self, stream: str, hold: Hold | None) -> None:
        """Set up to where a stream waits; None = it waits no longer."""
        self.changed_holds[stream] = hold
        if hold:
            self.holds[stream] = hold
        else:
            self.holds.pop(stream, None)

    def set_wait(self, trigger: str, wait: Wait | None) -> None:
        """Set the wait of a trigger; None = it waits no longer."""
        if wait is None:
            self.waits.pop(trigger, None)
            return
        self.waits[trigger] = wait
        self.wait_set_ms[trigger] = self.now_ms()

    def went_through(self, triggers: Iterable[str]) -> None:
        """Remember that the destination accepted deliveries of these triggers."""
        for trigger in triggers:
            self.waits.pop(trigger, None)
