"""Taps: records about deliveries that go through now, for `segrelay tap` and the console's page.

Whoever watches leaves a filter in Redis, which lapses unless it is renewed. Processes read the
filters beside something that they read anyway, once in a drain or once in a second of publishing:
while nobody watches, that is all it costs. While somebody does, a process picks what the filter
wants, takes a sample within a budget, masks it, and counts what it leaves out. Nothing waits for
a watch: what can't be kept or sent at once is left out, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.masking import hidden
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.errors import PayloadRefused

PER_SECOND: Final = 10.0
"""The records of one kind that a process makes a second for a watch; each takes about 25 µs."""
BURST: Final = 40.0
"""The records of one kind that it makes at once, where it has made few before."""
READING_SHARE: Final = 0.003
"""The share of a process' time in which it looks for a text in what goes through."""
READING_SECONDS_AT_ONCE: Final = 0.003
CONTENT_BYTES: Final = 4_000
"""The longest profile, body or answer that a record holds whole."""
RECORD_BYTES: Final = 8_000
MOST_RECORDS: Final = 500
"""The records that a process keeps for a watch until they are sent, and that Redis keeps."""
_READ_AT_ONCE: Final = 100
_COUNTS_EVERY_SECONDS: Final = 1.0
_MARK: Final = b"|"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TapKind(StrEnum):
    """The kinds of records: the stations of a delivery, in their order."""

    EVENT = "event"
    """A producer accepted an event for a trigger."""
    RENDER = "render"
    """A template made a body of it."""
    REQUEST = "request"
    """A request with it is sent."""
    ANSWER = "answer"
    """The request was answered, or it is clear that there is no answer."""
    OUTCOME = "outcome"
    """The delivery ended, or will be tried again."""


RETRY: Final = "retry"
"""The outcome of an attempt after which the delivery is tried again."""
OUTCOMES: Final = ("delivered", "skipped", "dead", RETRY)


class Passing(Protocol):
    """A delivery, as far as filters look at it."""

    @property
    def trigger(self) -> str:
        """Return the name of its trigger."""

    @property
    def header(self) -> Header:
        """Return the header with which it stands in its stream."""


One = TypeVar("One", bound=Passing)
_Any = TypeVar("_Any")


@dataclass(frozen=True, slots=True)
class TapFilter:
    """The choice of a watch; an empty one wants everything.

    Args:
        kind: A `TapKind`.
        outcome: One of `OUTCOMES`; with it, only records of outcomes are wanted.
        people: Digests; none = anybody.
        containing: A text in what is shown, in any case of its letters.
        reveal: The records hold people's data.
    """

    kind: str = ""
    trigger: str = ""
    audience: str = ""
    destination: str = ""
    outcome: str = ""
    people: frozenset[bytes] = frozenset()
    containing: str = ""
    reveal: bool = False

    def dumps(self) -> bytes:
        """Return the filter as Redis keeps it."""
        fields = {**asdict(self), "people": sorted(one.hex() for one in self.people)}
        fields["containing"] = PROTECTION.seal_name(self.containing)  # it may be a name
        return orjson.dumps({name: value for name, value in fields.items() if value})

    @classmethod
    def loads(cls, stored: bytes) -> Self:
        """Read a stored filter.

        Raises:
            PayloadRefused: Another version wrote it, or it was sealed for another Redis.
        """
        try:
            fields = orjson.loads(stored)
            people = frozenset(map(bytes.fromhex, fields.pop("people", ())))
            containing = PROTECTION.unseal_name(fields.pop("containing", ""))
            return cls(people=people, containing=containing, **fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise PayloadRefused("unreadable", "A watch can't be read.") from error

    def chosen(self, kind: TapKind, destination: str, ones: Sequence[One]) -> Sequence[One]:
        """Return the deliveries that the filter wants, apart from its outcome and its text.

        It is asked about each delivery that goes through, so it looks at all of them by one
        criterion after the other: that takes 50 ns each.
        """
        if (
            self.kind not in {"", kind}
            or self.destination not in {"", destination}
            or (self.outcome and kind is not TapKind.OUTCOME)
        ):
            return ()
        if self.trigger:
            ones = [one for one in ones if one.trigger == self.trigger]
        if self.audience:
            ones = [one for one in ones if one.header.audience == self.audience]
        if self.people:
            ones = [one for one in ones if one.header.digest in self.people]
        return ones


@dataclass(slots=True)
class Budget:
    """An allowance that grows with time, up to a limit (a token bucket)."""

    per_second: float
    most: float
    _left: float | None = None
    _at_seconds: float = 0.0

    def left(self, now_seconds: float) -> float:
        """Return the rest of the allowance; below 0 = more was spent than there was."""
        if self._left is None:
            self._left, self._at_seconds = self.most, now_seconds
        grown = max(0.0, now_seconds - self._at_seconds) * self.per_second
        self._left, self._at_seconds = min(self.most, self._left + grown), now_seconds
        return self._left

    def spend(self, amount: float) -> None:
        """Take an amount, which may be more than there is."""
        self._left = (self.most if self._left is None else self._left) - amount

    def take(self, wanted: int, now_seconds: float) -> int:
        """Take whole units, as many as are wanted and there, and return how many."""
        taken = min(wanted, int(max(0.0, self.left(now_seconds))))
        self.spend(taken)
        return taken


class Description(Protocol):
    """A maker of records, about deliveries or about the chosen deliveries of a request."""

    def record(self, one: Any, *, reveal: bool) -> Mapping[str, Any]:
        """Return the fields of a record."""

    def words(self, one: Any, *, reveal: bool) -> Sequence[str]:
        """Return the texts in which a filter's text is looked for."""


@dataclass(slots=True)
class _Watch:
    """A watch, with what this process has for it.

    Args:
        stored: The filter's text.
        left_out: The number of things that it wanted, or may have wanted, and does not get.
    """

    stored: bytes
    filter: TapFilter
    budgets: dict[TapKind, Budget] = field(
        default_factory=lambda: {kind: Budget(PER_SECOND, BURST) for kind in TapKind}
    )
    reading: Budget = field(default_factory=lambda: Budget(READING_SHARE, READING_SECONDS_AT_ONCE))
    records: list[bytes] = field(default_factory=list)
    left_out: int = 0

    def matching(
        self,
        kind: TapKind,
        destination: str,
        ones: Sequence[One],
        description: Description,
        outcome_of: Callable[[One], str],
    ) -> Sequence[One]:
        """Return the deliveries that the filter wants."""
        found = self.filter.chosen(kind, destination, ones)
        if self.filter.outcome:
            found = [one for one in found if outcome_of(one) == self.filter.outcome]
        if not (found and self.filter.containing):
            return found
        matching: list[One] = []
        for at in range(0, len(found), _READ_AT_ONCE):
            matching += self.with_text(description, found[at : at + _READ_AT_ONCE])
        return matching

    def with_text(self, description: Description, some: Sequence[_Any]) -> list[_Any]:
        """Return those in which the filter's text is shown, if there is time to look for it.

        Reading takes long, so it has a budget. All other filters look at everything: what is rare
        must not get lost in the sample.
        """
        begun = time.perf_counter()
        if self.reading.left(begun) <= 0:
            self.left_out += len(some)
            return []
        found = [one for one in some if self._has_text(description, one)]
        self.reading.spend(time.perf_counter() - begun)
        return found

    def _has_text(self, description: Description, one: Any) -> bool:
        text = self.filter.containing.casefold()
        words = description.words(one, reveal=self.filter.reveal)
        return any(text in each.casefold() for each in words)

    def keep(self, record: Mapping[str, Any]) -> None:
        """Keep a record until it is sent; a long one without its content."""
        text = orjson.dumps(record, default=str)
        if len(text) > RECORD_BYTES:
            text = orjson.dumps({**record, "content": None, "url": None}, default=str)
        if len(text) > RECORD_BYTES or len(self.records) >= MOST_RECORDS:
            self.left_out += 1
        else:
            self.records.append(text)


class TapOffer(NamedTuple):
    """The records of a process for one watch, and how much it left out since the last ones."""

    watch_id: str
    records: Sequence[bytes]
    left_out: int


@dataclass(slots=True)
class Taps:
    """The watches that a process knows, and what it has for them; false where there are none."""

    clock: Callable[[], float] = time.monotonic
    _watches: dict[str, _Watch] = field(default_factory=dict)
    _taken_seconds: float = 0.0

    def __bool__(self) -> bool:
        """Say whether anybody watches."""
        return bool(self._watches)

    def learn(self, stored: Mapping[bytes, bytes]) -> None:
        """Take over the watches that Redis has now, and forget all others.

        A watch that can't be read, such as one of a newer version, gets nothing.
        """
        if not stored and not self._watches:
            return
        known, self._watches = self._watches, {}
        for name, text in stored.items():
            if _MARK in name:
                continue
            watch_id = name.decode()
            watch = known.get(watch_id)
            with suppress(PayloadRefused):
                if watch is None or watch.stored != text:
                    watch = _Watch(text, TapFilter.loads(text))
                self._watches[watch_id] = watch

    def forget(self) -> None:
        """Forget all watches until they are learned again."""
        self._watches = {}

    def offer(
        self,
        kind: TapKind,
        destination: str,
        ones: Sequence[One],
        description: Description,
        outcome_of: Callable[[One], str] = lambda _: "",
        *,
        has: Callable[[One], bool] = lambda _: True,
    ) -> None:
        """Offer deliveries, each for a record of its own.

        Args:
            kind: What happened to them.
            destination: Its name.
            ones: The deliveries.
            description: Makes their records.
            outcome_of: Returns the outcome of one, if that is what happened.
            has: Says whether there is anything to show of one.
        """
        for watch in self._watches.values():
            found = watch.matching(kind, destination, ones, description, outcome_of)
            if not found:
                continue
            if watch.budgets[kind].left(self.clock()) < 1.0:
                watch.left_out += len(found)  # to look at each would take longer than the records
                continue
            found = [one for one in found if has(one)]
            room = watch.budgets[kind].take(len(found), self.clock())
            watch.left_out += len(found) - room
            for one in found[:room]:
                watch.keep(description.record(one, reveal=watch.filter.reveal))

    def offer_whole(
        self, kind: TapKind, destination: str, ones: Sequence[One], description: Description
    ) -> None:
        """Offer a request or an answer, for one record if any of its deliveries is wanted."""
        for watch in self._watches.values():
            found = watch.filter.chosen(kind, destination, ones)
            if found and watch.filter.containing:
                found = next(iter(watch.with_text(description, [found])), ())
            if not found:
                continue
            if watch.budgets[kind].take(1, self.clock()):
                watch.keep(description.record(found, reveal=watch.filter.reveal))
            else:
                watch.left_out += 1

    def is_due(self) -> bool:
        """Say whether there are records, or counts that have waited for a second.

        A producer sends as often as it publishes: it does not for a count.
        """
        if any(watch.records for watch in self._watches.values()):
            return True
        is_late = self.clock() >= self._taken_seconds + _COUNTS_EVERY_SECONDS
        return is_late and any(watch.left_out for watch in self._watches.values())

    def take(self) -> list[TapOffer]:
        """Take what there is for the watches; whoever takes it sends it."""
        self._taken_seconds = self.clock()
        offers = []
        for watch_id, watch in self._watches.items():
            if watch.records or watch.left_out:
                offers.append(TapOffer(watch_id, watch.records, watch.left_out))
                watch.records, watch.left_out = [], 0
        return offers

    def lose(self, offers: Sequence[TapOffer]) -> None:
        """Count offers that could not be sent as left out."""
        for offer in offers:
            watch = self._watches.get(offer.watch_id)
            if watch:
                watch.left_out += offer.left_out + len(offer.records)


def record_of(kind: TapKind, at_ms: int, destination: str, **more: Any) -> dict[str, Any]:
    """Return the fields that all records begin with, and more of them."""
    return {"time": shown_time(at_ms), "kind": kind.value, "destination": destination, **more}


def about(one: Passing) -> dict[str, Any]:
    """Return the fields that tell which delivery a record is about."""
    header = one.header
    return {
        "trigger": one.trigger,
        "audience": header.audience,
        "direction": header.direction.value,
        "person": header.digest.hex(),
        "event_time": shown_time(header.time_us // 1_000),
    }


def shown_time(at_ms: int) -> str:
    """Return a moment as RFC 3339, in UTC, with milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown_content(
    text: bytes, *, reveal: bool, mask: Callable[[Any], Any] = hidden
) -> dict[str, Any]:
    """Return the fields for a profile, a body or an answer: its size, and it, masked or not.

    What is too long is cut where it is revealed, and missing where it is masked: only what is read
    as a whole can be masked.
    """
    shown: dict[str, Any] = {"bytes": len(text)}
    if not text:
        return {**shown, "content": None}
    if len(text) <= CONTENT_BYTES:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text.decode(errors="replace")
        return {**shown, "content": value if reveal else mask(value)}
    cut = text[:CONTENT_BYTES].decode(errors="ignore")
    return {**shown, "content": f"{cut}…" if reveal else None}
