"""`RedisPartition`: a partition as Redis keeps it, and the lease as a drain holds it.

The scripts' arguments are put together here. The lease is renewed from the one thread that a
process has: rendering holds the event loop, the thread goes on. Its clock is CLOCK_BOOTTIME, which
goes on while the process or the machine is stopped, so that a lease that lapsed meanwhile is never
believed in.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Final, Literal, Self

import orjson

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.scripts import until_confirmed
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    ReadEntries,
    ReadRange,
    Release,
    Settlement,
    TakenPartition,
)
from segrelay.worker.contract.events import open_entry, read_entry
from segrelay.worker.contract.keys import (
    REACHED_KEPT,
    PartitionKeys,
    split_stream_name,
)
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.ledger import pack as pack_record
from segrelay.worker.contract.outcomes import RETRY, End, pack
from segrelay.worker.contract.protection import PROTECTION, RESPONSES
from segrelay.worker.contract.records import read_row
from segrelay.worker.contract.redis.accept import (
    OTHERWISE_SEALED,
    NewDelivery,
    accept_call,
)
from segrelay.worker.contract.redis.accept import SCRIPT as ACCEPT
from segrelay.worker.contract.redis.client import AsyncRedis, Redis
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    Value,
    named_answer,
    run_script,
    run_script_async,
    run_together,
    script_call,
)
from segrelay.worker.core.backoff import Backoff, Wait
from segrelay.worker.core.gate import LaneKind
from segrelay.worker.core.ledger import may_be_member
from segrelay.worker.errors import LeaseLost, RedisMismatch, RedisUnavailable

SETTLE: Final = scripts.source("settle")
TAKE: Final = scripts.source("take")
_HASHES: Final = ("intents", "open", "retry", "aside", "holds")
_FEW_ENTRIES: Final = 2
"""The most entries that are settled of a stream at once for it to be removed if that empties it.

Others get work again soon: an empty stream takes a few hundred bytes, a new one some time."""


def settle_call(
    k: PartitionKeys,
    what: Settlement,
    token: str,
    retention_ms: int,
    emptied: Container[str] = (),
    *,
    most_bytes: int,
) -> ScriptCall:
    """Return the call of the script that settles.

    Args:
        k: The keys of the partition.
        what: The work to settle.
        token: The token of the lease.
        retention_ms: The time (ms) after which a ledger that may lapse does.
        emptied: The names of streams of which nothing is left unsettled, as far as they were read.
        most_bytes: The most bytes of the outcome log.
    """
    backoffs = [
        (*position.rpartition("|")[::2], value) for position, value in what.backoffs.items()
    ]
    by_reason: dict[tuple[str, str | None], list[Delivery]] = {}
    for d in what.settled:
        by_reason.setdefault((d.stream, d.reason), []).append(d)
    named = (*(stream for stream, _ in by_reason), *(stream for stream, _, _ in backoffs))
    stream_index = {name: number for number, name in enumerate(dict.fromkeys(named), start=1)}
    # A request tells all of its ledgers; what was settled without one tells those of its entries.
    told = {} if what.intent_id else {d: f"={n}" for n, d in enumerate(what.ledgers, start=1)}
    texts = [_ledger(record) for record in what.ledgers.values()]
    groups_of = Counter(stream for stream, _ in by_reason)
    groups = by_reason.values()
    dead_letters = [[d.dead_letter for d in group if d.dead_letter] for group in groups]
    return script_call(
        SETTLE,
        k,
        stream=[k.stream(name) for name in stream_index],
        ledger=k.ledgers(what.ledgers),
        token=token,
        intent=what.intent_id,
        open_ms=round(what.open_seconds * 1000),
        retention=retention_ms,
        ledger_lengths=" ".join([str(-len(text) if lasts else len(text)) for text, lasts in texts]),
        ledger_texts=b"".join([text for text, _ in texts]),
        tag=k.tag,
        groups_about=[
            f"{stream_index[stream]}"
            f" {_last(group, is_whole=groups_of[stream] == 1) if stream in emptied else 0}"
            f" {len(some)} {group[0].counted_as}"
            for ((stream, _), group), some in zip(by_reason.items(), dead_letters, strict=True)
        ],
        groups_ids=[
            " ".join([d.entry_id + (told.get(d.digest, "") if d.tells else "") for d in group])
            for group in groups
        ],
        deaths=[dead_letter for some in dead_letters for dead_letter in some],
        waits_trigger=list(what.waits),
        waits_text=[_wait(wait) for wait in what.waits.values()],
        asides_stream=[stream_index[stream] for stream, _, _ in backoffs],
        asides_id=[entry_id for _, entry_id, _ in backoffs],
        asides_text=[_backoff(value) for _, _, value in backoffs],
        adds_field=list(what.counts),
        adds_amount=list(what.counts.values()),
        people_digest=list(what.reached),
        people_text=list(what.reached.values())
        if not PROTECTION
        else [PROTECTION.seal(text, who.encode()) for who, text in what.reached.items()],
        records=[PROTECTION.seal(record, RESPONSES) for record in what.responses],
        ends=[pack(_ends(groups, what)), most_bytes] if what.settled or what.retried else (),
    )


def _ends(groups: Iterable[Sequence[Delivery]], what: Settlement) -> Iterator[End]:
    """Yield rows about deliveries that are settled, group after group, then about tries."""
    for group in groups:
        outcome, reason = group[0].outcome, group[0].reason
        for d in group:
            yield End(
                d.header,
                d.stream,
                outcome,
                reason.value if reason else "",
                d.template_hash,
                d.answer.status if d.answer else 0,
                d.attempts,
                d.remark,
            )
    for d in what.retried:
        yield End(
            d.header, d.stream, RETRY, attempts=d.attempts, message=what.retry_message, counts=0
        )


def _last(group: Sequence[Delivery], *, is_whole: bool) -> int:
    """Return 2 for a group after which its stream is removed if it is empty; else 1."""
    return 2 if is_whole and len(group) <= _FEW_ENTRIES else 1


def _ledger(record: Record) -> tuple[bytes, int]:
    """Return a packed record, and 1 if it never lapses; else it is kept for the retention."""
    return pack_record(record), int(may_be_member(record))


def _wait(wait: Wait | None) -> bytes:
    return orjson.dumps(astuple(wait)) if wait else b""


def _backoff(backoff: Backoff) -> bytes:
    """Return a backoff as text; of an outage, which sets nothing aside, there may be millions."""
    kept = astuple(backoff)
    return orjson.dumps(kept if backoff.refusal or backoff.not_before_ms else kept[:_OF_AN_OUTAGE])


_OF_AN_OUTAGE: Final = 5
"""The fields of a backoff that say how wide a request may be, and what has failed."""


_ACCEPT_IN_ANY_CASE: Final = ACCEPT.replace("#!lua\n", "#!lua flags=allow-oom\n", 1)
"""The script that accepts deliveries even in a full Redis: a repair must not be refused."""
_OTHERWISE_ADDRESSED: Final = -2
_READ_BYTES: Final = 4_000_000
"""The bytes after which only one entry of each further stream is read."""
_READ_AT_FIRST: Final = 100
"""The most entries of several streams in the first round trip, while their sizes are not known."""
_READ_GROWTH: Final = 4
"""The factor by which more may come in the next round trip, as far as `_READ_BYTES` allow it."""
_STREAMS_AHEAD: Final = 4
_ENTRIES_AHEAD: Final = 8
"""The most live streams, and one more than the most entries of each, that come with the lease."""
_QUEUES: Final[dict[int, Literal["live", "backfill", ""]]] = {0: "", 1: "live", 3: "backfill"}
_DUE: Final[dict[LaneKind, int]] = {"live": 1, "backfill": 3}


_Entry = Sequence[Any]
"""An entry of a stream, as Redis gives it: its id, and a list of its fields and their values."""


@dataclass(slots=True)
class _Ahead:
    """All live deliveries of a partition, as they were found when its lease was taken.

    They are used once, before anything else is read or written: what comes later is newer.

    Args:
        entries: The entries, by the names of their streams; {} = there were none, or too many.
        ledgers: Their ledger records, by the digests of their profiles.
        marked: The positions that the script has written down as being rendered.
    """

    entries: Mapping[str, Sequence[_Entry]] = field(default_factory=dict)
    ledgers: Mapping[bytes, bytes | None] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> _Ahead:
        """Read the answer of the script that takes the lease."""
        digests = [bytes.fromhex(digest.decode()) for digest in found["digests"]]
        return cls(
            {name.decode(): entries for name, entries in _pairs(found["ahead"])},
            dict(zip(digests, found["ledgers"], strict=True)),
            frozenset(position.decode() for position in found["marked"]),
        )


class RedisPartition:
    """Keeps a partition of a destination in Redis. Writing without the lease raises `LeaseLost`.

    Args:
        client: The client of Redis; it repeats no command by itself.
        retention_seconds: The retention of the ledger of somebody who is in no audience, after
            its last write.
        late_seconds: The time for which an intent in doubt stays open, `delivery.late`.
        owner: The holder of the lease: `host:pid`, a space, the fingerprint of its configuration.
        address: The destination's address and authorization, as `place_of` has them.
        may_repeat: A function that says whether a settle that Redis did not confirm should still
            be repeated.
        most_bytes: The most bytes of the outcome log.
        reads_along: Commands that are run right after the lease was taken; the client has to keep
            their order.

    Attributes:
        read_along: The answers to `reads_along`, as of the last lease; () = there are none.
    """

    def __init__(
        self,
        client: AsyncRedis,
        keys: PartitionKeys,
        *,
        lease_seconds: float,
        retention_seconds: float,
        late_seconds: float,
        owner: str,
        address: str = "",
        may_repeat: Callable[[], bool] = lambda: True,
        most_bytes: int,
        reads_along: Sequence[Sequence[str]] = (),
    ) -> None:
        self._client = client
        self._most_bytes = most_bytes
        self._reads_along = reads_along
        self.read_along: Sequence[Any] = ()
        self.keys = keys
        self.lease_ms = round(lease_seconds * 1000)
        self._retention_ms = round(retention_seconds * 1000)
        self._late_ms = round(late_seconds * 1000)
        self._owner = owner
        self._address = address
        self._may_repeat = may_repeat
        self.token = secrets.token_hex(8)
        self._ahead = _Ahead()
        self._ended: set[str] = set()
        self._unsettled: defaultdict[str, set[str]] = defaultdict(set)
        self._read_at_once = _READ_AT_FIRST

    async def take(self) -> TakenPartition | None:
        """Take the lease if it is free, and clear the wake-up."""
        call = script_call(
            TAKE,
            self.keys,
            token=self.token,
            length=self.lease_ms,
            owner=self._owner,
            late_ms=self._late_ms,
            secret=PROTECTION.secret_id.hex(),
            address=self._address,
            tag=self.keys.tag,
            streams_ahead=_STREAMS_AHEAD,
            entries_ahead=_ENTRIES_AHEAD,
        )
        found = named_answer(TAKE, await self._taken(call))
        if found["taken"] == _OTHERWISE_ADDRESSED:
            raise RedisMismatch(
                f"The destination {self.keys.destination} has another address or authorization"
                " since this process was started: restart it with the present configuration."
            )
        if found["taken"] < 0:
            raise self._otherwise_sealed()
        if not found["taken"]:
            return None
        self._ahead = _Ahead.of(found)
        hashes = {name: list(_pairs(found[name])) for name in _HASHES}
        ends = {intent: int(end) for intent, end in hashes["open"]}
        rendering, largest = found["rendering"], found["largest"]
        return TakenPartition(
            now_ms=found["now"],
            streams=_sorted(found["streams"]),
            intents=tuple(
                Intent.loads(i.decode(), text, ends.get(i, 0)) for i, text in hashes["intents"]
            ),
            rendering=frozenset(orjson.loads(rendering) if rendering else ()),
            waits={i.decode(): read_row(Wait, text) for i, text in hashes["retry"]},
            backoffs={i.decode(): read_row(Backoff, text) for i, text in hashes["aside"]},
            holds={i.decode(): _hold(text) for i, text in hashes["holds"]},
            reached_up_to=largest.decode() if found["reached"] >= REACHED_KEPT else "",
        )

    async def _taken(self, call: ScriptCall) -> Any:
        """Take the lease, read what is to be read along, and return the script's answer."""
        if not self._reads_along:
            return await self._call("take", call.keys, call.args)
        taken, *self.read_along = await run_together(
            self._client, [(TAKE, call)], self._reads_along
        )
        return taken

    async def streams(self) -> tuple[str, ...]:
        """Return the names of the streams that are not empty, now."""
        names = await self._client.execute_command("SMEMBERS", self.keys.streams)
        return _sorted(names)

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        """Read the next entries of several streams; of many in one round trip.

        After large entries, fewer are returned of the next streams than were asked for.
        """
        ahead, self._ahead.entries = self._ahead.entries, {}
        if all(each.stream in ahead and not each.after_id for each in ranges):
            return self._read_of(ranges, [(ahead[each.stream], True) for each in ranges])
        found: dict[ReadRange, ReadEntries] = {}
        left = _READ_BYTES
        wanted = deque(sorted(ranges, key=lambda each: each.most))
        while wanted:
            most = wanted[0].most
            group = [wanted.popleft()]
            most_streams = self._read_at_once // most
            while wanted and wanted[0].most == most and len(group) < most_streams:
                group.append(wanted.popleft())
            rows = await self._next_entries(group, most if left > 0 else 1)
            found.update(zip(group, rows, strict=True))
            sizes = [entry.size for each in rows for entry in each.entries]
            left -= sum(sizes)
            if sizes:
                fitting = _READ_BYTES * len(sizes) // max(1, sum(sizes))
                self._read_at_once = min(_READ_GROWTH * self._read_at_once, fitting)
        return [found[wanted] for wanted in ranges]

    async def _next_entries(self, ranges: Sequence[ReadRange], most: int) -> list[ReadEntries]:
        keys = [self.keys.stream(each.stream).encode() for each in ranges]
        after = [each.after_id or "0" for each in ranges]
        answer = await self._client.execute_command(
            "XREAD", "COUNT", most, "STREAMS", *keys, *after
        )
        rows = dict(answer or ())  # a stream with nothing behind the id is missing
        found = [rows.get(key, ()) for key in keys]
        return self._read_of(ranges, [(some, len(some) < most) for some in found])

    def _read_of(
        self, ranges: Sequence[ReadRange], found: Iterable[tuple[Sequence[_Entry], bool]]
    ) -> list[ReadEntries]:
        """Return the entries that were found in each range, and remember them.

        Args:
            ranges: The ranges.
            found: The entries of each range, and whether its stream ends with them.
        """
        read: list[ReadEntries] = []
        for (stream, _, _), (some, is_all) in zip(ranges, found, strict=True):
            (self._ended.add if is_all else self._ended.discard)(stream)
            read.append(ReadEntries(_deliveries(stream, some), is_all))
            self._unsettled[stream].update([one.entry_id for one in read[-1].entries])
        return read

    async def ledgers(
        self, digests: Sequence[bytes], rendering: Sequence[str] = ()
    ) -> list[bytes | None]:
        """Read packed records, and write down which deliveries will be rendered.

        Args:
            digests: The digests of the profiles.
            rendering: The positions of the deliveries that will be rendered.
        """
        ahead, self._ahead.ledgers = self._ahead.ledgers, {}
        is_marked = bool(rendering) and self._ahead.marked.issuperset(rendering)
        if is_marked and ahead.keys() >= {*digests}:
            return [ahead[digest] for digest in digests]
        keys: list[str | bytes] = [self.keys.lease, self.keys.rendering]
        keys += self.keys.ledgers(digests)
        written = orjson.dumps(rendering) if rendering else b""
        answer = await self._call("ledger", keys, (self.token, written))
        if not answer[0]:
            raise self._lost()
        return list(answer[1:])

    async def peek(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Read packed records without holding the lease."""
        return list(await self._client.execute_command("MGET", *self.keys.ledgers(digests)))

    async def intent(self, intent: Intent) -> int:
        """Write an intent and renew the lease; return the present time (ms, Redis' clock)."""
        keys = (self.keys.lease, self.keys.intents, self.keys.rendering)
        now_ms = await self._write(
            "intent", keys, (self.token, self.lease_ms, intent.intent_id, intent.dumps())
        )
        if not now_ms:
            raise self._lost()
        return int(now_ms)

    async def intents_in_doubt(
        self, intent_ids: Sequence[str], seconds: float, records: Mapping[bytes, Record]
    ) -> int:
        """Open the intents of a lease holder that vanished; return the time of their end (ms)."""
        k = self.keys
        self._ahead = _Ahead()
        end_ms = await self._write(
            "open",
            (k.lease, k.intents, k.open, *map(k.ledger, records)),
            (
                self.token,
                round(seconds * 1000),
                self._retention_ms,
                len(intent_ids),
                *intent_ids,
                *(part for record in records.values() for part in _ledger(record)),
            ),
        )
        if not end_ms:
            raise self._lost()
        return int(end_ms)

    async def settle(self, settlement: Settlement) -> int:
        """Settle, repeated until Redis confirms it.

        Returns:
            The end of the intent in doubt (ms of Redis' clock); 0 if none is.
        """
        self._ahead = _Ahead()
        call = settle_call(
            self.keys,
            settlement,
            self.token,
            self._retention_ms,
            self._emptied_by(settlement.settled),
            most_bytes=self._most_bytes,
        )
        state, _, end_ms = await until_confirmed(
            lambda: self._write("settle", call.keys, call.args), self._may_repeat
        )
        if not state:
            raise self._lost()
        return int(end_ms)

    def _emptied_by(self, settled: Sequence[Delivery]) -> set[str]:
        """Return the streams of which all that was read is settled then, up to their ends."""
        for delivery in settled:
            self._unsettled[delivery.stream].discard(delivery.entry_id)
        streams = {delivery.stream for delivery in settled}
        return {stream for stream in streams & self._ended if not self._unsettled[stream]}

    async def release(
        self,
        holds: Mapping[str, Hold | None],
        paused: Iterable[str],
        *,
        suspects: Iterable[str] = (),
        labels: Iterable[str] = (),
        keep_for: Iterable[LaneKind] = (),
    ) -> Release:
        """Give the lease back.

        Args:
            holds: The holds that have changed, by stream; None = that hold is over.
            paused: Triggers of which nothing may be done now, and lanes that are paused.
            suspects: The positions of deliveries that the next holder has to render apart, too.
            labels: Texts `trigger|EDITION`; what waits because of another edition is due.
            keep_for: The kinds of lanes for whose work the lease is kept, if some may be done now.
        """
        k = self.keys
        positions = sorted(suspects)
        kept = orjson.dumps(positions) if positions else b""
        pairs = [
            part
            for name, hold in holds.items()
            for part in (name, " ".join(map(str, hold)).rstrip() if hold else "")
        ]
        keeps = max((_DUE[kind] for kind in keep_for), default=0)
        released, due, wake = await self._call(
            "release",
            (k.lease, k.rendering, k.holds, k.streams, k.retry, k.wakeup),
            (self.token, keeps, k.tag, kept, len(holds), *pairs, *paused, *labels),
        )
        return Release(bool(released), bool(due), _QUEUES[wake])

    async def hold_back(self, intent: Intent, seconds: float) -> None:
        """Open an intent without holding the lease; the profiles in it wait until its end."""
        nobodys = tuple([("", header) for _, header in intent.deliveries])
        repair = Intent(f"{intent.intent_id}-repair", nobodys)
        args = (repair.intent_id, repair.dumps(), round(seconds * 1000))
        await self._write("hold_back", (self.keys.intents, self.keys.open), args)

    async def accept(self, deliveries: Sequence[NewDelivery]) -> None:
        """Add deliveries, e.g. repairs; needs no lease."""
        call = accept_call(self.keys, deliveries)
        answer = await run_script_async(
            self._client, _ACCEPT_IN_ANY_CASE, call.keys, call.args, replicated=True
        )
        if answer[0] == OTHERWISE_SEALED:
            raise self._otherwise_sealed()

    async def _call(self, name: str, keys: Sequence[str | bytes], args: Sequence[Value]) -> Any:
        return await run_script_async(self._client, scripts.source(name), keys, args)

    async def _write(self, name: str, keys: Sequence[str | bytes], args: Sequence[Value]) -> Any:
        """Run a script whose effect a failover must not undo."""
        return await run_script_async(
            self._client, scripts.source(name), keys, args, replicated=True
        )

    def _otherwise_sealed(self) -> RedisMismatch:
        return RedisMismatch(
            f"The partition {self.keys.tag} is sealed with another secret than this process has:"
            " restart it."
        )

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"The lease of {self.keys.tag} was taken over by another worker.")


def _sorted(names: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(sorted([name.decode() for name in names]))


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _deliveries(stream: str, rows: Iterable[_Entry]) -> list[Delivery]:
    _, trigger = split_stream_name(stream)
    deliveries: list[Delivery] = []
    for entry_id, fields in rows:
        match fields:
            case [b"h", text, b"p", stored]:
                header, profile = open_entry(text, stored)
            case _:
                text, header, profile = read_entry(dict(_pairs(fields)))
        deliveries.append(Delivery(stream, trigger, entry_id.decode(), header, profile, text))
    return deliveries


def _hold(text: bytes) -> Hold:
    last_id, until, *edition = text.decode().split(" ")
    return read_row(Hold, (last_id, int(until), *edition))


RENEW_SECONDS: Final = 2.0
"""Seconds between renewals; `delivery.lease` is longer."""


def boottime_seconds() -> float:
    """Return seconds since the machine started; elsewhere than on Linux, monotonic seconds."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class LeaseKeeper:
    """The thread of a process that renews the lease at hand, whichever that is.

    It lives as long as its process: a drain of one event would take longer to start it, and to wait
    for its end, than to do anything else.

    Args:
        client: The client of Redis that only the thread uses.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._lease: ThreadedLease | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def keep(self, lease: ThreadedLease | None) -> None:
        """Renew this lease from now on, and no other; None = none."""
        self._lease = lease
        self.begin()

    def begin(self) -> None:
        """Start the thread before there is a lease; otherwise the first one starts it."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """End the thread, and close its client."""
        self._closed.set()
        self._client.close()

    def _run(self) -> None:
        while not self._closed.wait(RENEW_SECONDS):
            if lease := self._lease:
                lease.renew(self._client)


class ThreadedLease:
    """Keeps a lease renewed while it is entered, from the thread of its process.

    It is made before the lease is taken, and so knows a time from which the lease holds.

    Args:
        keeper: The keeper of leases, which has the thread and a client of its own.
    """

    def __init__(
        self, keeper: LeaseKeeper, keys: PartitionKeys, token: str, lease_seconds: float
    ) -> None:
        self._keeper = keeper
        self._keys = keys
        self._token = token
        self._lease_seconds = lease_seconds
        self._until = boottime_seconds() + lease_seconds
        self._lost = False

    def __enter__(self) -> Self:
        """Begin to renew; the lease was taken a moment ago."""
        self._keeper.keep(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing; whoever holds the lease gives it back.

        A renewal that is under way does no harm: a lease that was given back has another token.
        """
        self._keeper.keep(None)

    def is_valid(self) -> bool:
        """Say whether the lease holds, by a clock that runs on while the process is stopped."""
        return not self._lost and boottime_seconds() < self._until

    def renew(self, client: Redis) -> None:
        """Renew the lease, unless it was lost."""
        if self._lost:
            return
        asked = boottime_seconds()
        try:
            now_ms = run_script(
                client,
                scripts.source("intent"),
                (self._keys.lease,),
                (self._token, round(self._lease_seconds * 1000), ""),
            )
        except RedisUnavailable:
            return
        if now_ms:
            self._until = asked + self._lease_seconds
        else:
            self._lost = True


class SystemClock:
    """The clock of a drain: it tells CLOCK_BOOTTIME, and sleeps on the event loop."""

    def seconds(self) -> float:
        """Return the seconds since the machine started; see `boottime_seconds`."""
        return boottime_seconds()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
