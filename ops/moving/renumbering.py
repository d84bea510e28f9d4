"""Changing the number of partitions: all that they hold is copied while everything stands still.

1. The change is announced: no process starts until it is done.
2. The leases of the former partitions are taken for good. Every script that adds something looks at
   them, so that a process that stood still, however long, writes nothing there.
3. All that they hold is copied to new partitions, whose numbers there never were.
4. The new number holds, in one write.
5. The former partitions are deleted.

An attempt that was killed is followed by another one, which deletes what was copied, and copies it
anew. It takes the leases of the new partitions: an earlier attempt that only stood still has lost
them, so that its writes are refused, and so is its switch.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import orjson

from segrelay.ops.dead_letters.reading import PROFILE, dead_letter_id_in, parse_dead_letter
from segrelay.ops.dead_letters.reading import digest_of as digest_of_dead_letter
from segrelay.ops.moving.carrying import end_halves, in_parts
from segrelay.ops.moving.leases import (
    FOR_EVER_MS,
    PATIENCE_SECONDS,
    HeldLease,
    giving_back,
    hold_all,
    taken_turn,
)
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import Carried, ask_each, known_destinations
from segrelay.producer.steps import StepStore
from segrelay.producer.sync.store import SyncStore, unpack_members
from segrelay.worker.batch.delivery import seal_dead_letter, unseal_dead_letter
from segrelay.worker.batch.partition import IntendedDelivery, Intent
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.keys import (
    DIGEST_BYTES,
    PartitionKeys,
    digest_of,
    outcome_field,
    split_stream_name,
)
from segrelay.worker.contract.partitions import RENUMBERED_LEASE, Numbering
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields, scan_keys
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import job_of_lane
from segrelay.worker.errors import LeaseLost, OperationsMustAct, PayloadRefused

_ATTEMPT_MS: Final = 10_000
"""The time without a write (ms) after which another attempt may begin."""
_MOST_BYTES: Final = 2_000_000
"""The bytes of writes that are sent in one go."""
_CALL_BYTES: Final = 100
"""The bytes that a write costs beside its words."""
_MOST_PAIRS: Final = 500
"""The most fields of one command: Lua's `unpack` has a limit."""
_ENTRIES: Final = 200
"""Entries of a stream that are read at once."""
_DEAD_LETTERS: Final = 50
"""Letters read at once: few, because a letter may hold a profile of a megabyte."""
_TOLD_SECONDS: Final = 2.0
_MS: Final = 1_000

_OF_PERSON: Final = re.compile(rf"carried:[0-9a-f]{{{2 * DIGEST_BYTES}}}")
"""The part with the marks of letters that come from a person's former identity."""
_LEASE: Final = "lease"
"""The part of a former partition that stays for good."""
_STAYING: Final = frozenset({"", _LEASE, "outcomes", "recorded"})
"""Parts that stay in a former partition; outcomes do until they are written and old enough."""
_MEMBERS: Final = "members:"
_TEXTS: Final = (b"l", b"u", b"i")
"""The beginnings of the keys of ledgers, stable ids and lists of these; a digest follows."""
_SUMS: Final = ("counts", "jobtimes", "changed")
_NOT_COPIED: Final = _STAYING | {
    *("wakeup", "rendering", "holds", "orphans", "streams", "answered"),
}
"""Parts that stay, that a drain writes anew, that follow from what is copied, or are not kept."""
_ONE_EACH: Final = frozenset(
    {
        *_SUMS, "aside", "causes", "changes", "dead_letters", "forwards", "history", "intents",
        "jobs", "dead_letters_leaving", "dead_letter_times", "open", "reached", "responses",
        "responseslost", "retry", "synctokens", "who",
    }
)  # fmt: skip
"""Parts of which a partition has one each."""


class Renumbering:
    """Changes the number of partitions, or goes on with a change that was interrupted.

    Args:
        count: The number that there will be.
        patience_seconds: The longest wait for a lease of a partition that is in use.
    """

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        count: int,
        tell: Callable[[Carried], None] = lambda _: None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._settings = settings
        self._count = count
        self._tell = tell
        self._patience_seconds = patience_seconds
        self._attempt = ""

    def run(self) -> Carried:
        """Copy everything to the new partitions, and return the counts.

        Raises:
            OperationsMustAct: Somebody holds a lease, or a step of a sync goes on; or it is being
                changed to another number, or by somebody else.
            RedisUnavailable: Give the command again.
        """
        self._attempt = secrets.token_hex(8)
        numbering = learn_numbering(self._client, self._settings)
        copied = Carried()
        if numbering.target or numbering.count != self._count:
            copied = self._change(numbering)
            numbering = learn_numbering(self._client, self._settings)
        self._delete(range(numbering.first))
        return copied

    def _change(self, numbering: Numbering) -> Carried:
        if numbering.target not in {0, self._count}:
            raise OperationsMustAct(
                f"The number of partitions is being changed to {numbering.target}: finish that by"
                f" `segrelay redis partitions {numbering.target}` first."
            )
        begun = replace(numbering, target=self._count)
        if not numbering.target:
            self._write(numbering, begun, "begin")
        into = begun.following
        names = self._destinations()
        # A process that stood still may have added one before it was announced, and none since.
        former = [self._former(name, at) for name in names for at in begun.numbers]
        hold_all(self._client, former)
        leases = [self._lease(name, at) for name in names for at in into.numbers]
        copies = Copies(self._client, {one.partition: one for one in leases})
        with giving_back(copies.let_go):
            hold_all(self._client, leases)
            self._write(begun, begun, "begin")
            self._end_steps(names, copies.hold)
            end_halves(self._client, {lease.partition: lease for lease in former})
            retention_ms = round(_MS * self._settings.delivery.ledger_retention_seconds)
            for name in names:
                partitions = [self._settings.redis.ids.partition(name, at) for at in into.numbers]
                copies.empty(partitions)
                Copy(self._client, partitions[0], begun, copies, self._tell, retention_ms).run()
            self._write(begun, into, "end")
        return copies.copied

    def _write(self, before: Numbering, after: Numbering, step: str) -> None:
        args = (before.dumps(), after.dumps(), self._attempt, step)
        call = ScriptCall((keys.PARTITIONS, keys.RENUMBERING), args)
        if not opened.run(self._client, "renumber", [call], replicated=True)[0]:
            raise OperationsMustAct(
                "Somebody else changes the number of partitions at this moment; `segrelay redis"
                " partitions` shows how many there are. Give the command again if need be."
            )

    def _destinations(self) -> list[str]:
        """Return the destinations that have an id; nobody has written anything about others."""
        names = known_destinations(self._client, self._settings)
        return [name for name in names if self._settings.redis.ids.has(name)]

    def _lease(self, destination: str, number: int) -> HeldLease:
        """Return the lease of a new partition, as this attempt holds it."""
        return HeldLease(
            self._client,
            self._settings.redis.ids.partition(destination, number),
            f"{socket.gethostname()}:redis-partitions",
            token=self._attempt,
            length_ms=_ATTEMPT_MS,
            patience_seconds=self._patience_seconds,
        )

    def _former(self, destination: str, number: int) -> HeldLease:
        """Return the lease of a former partition, which is never given back."""
        deadline_seconds = self._settings.delivery.request_deadline_seconds
        return replace(
            self._lease(destination, number),
            token=RENUMBERED_LEASE,
            length_ms=FOR_EVER_MS,
            patience_seconds=self._patience_seconds + deadline_seconds,
        )

    def _end_steps(self, names: Iterable[str], hold: Callable[[], None]) -> None:
        """End what a step of a sync, an export or a renaming of people has left; none begins."""
        for name in self._settings.sync:
            store = SyncStore(self._client, name, self._settings.redis)
            run, _ = taken_turn(store.take, f"sync '{name}'", hold)
            run.give_up()
            store.save(run, ends=True)
        for name in names:
            destination_id = self._settings.redis.ids.of(name)
            for key, shown in (
                (keys.responses(destination_id), f"responses of '{name}'"),
                (keys.changes(destination_id), f"renaming at '{name}'"),
            ):
                is_there = self._client.exists(key)
                if is_there:
                    steps = StepStore(self._client, key, shown)
                    state, now_ms = taken_turn(steps.take, f"the {shown}", hold)
                    steps.save(state, next_ms=now_ms, ends=True)

    def _delete(self, numbers: Collection[int]) -> None:
        """Delete what former partitions hold; their leases stay, and nobody reads the rest."""
        for name in self._destinations() if numbers else ():
            partitions = [self._settings.redis.ids.partition(name, number) for number in numbers]
            for found in scan_keys(self._client, partitions, "*"):
                gone = [key for key in found if _part(key, partitions) not in _STAYING]
                ask_each(self._client, gone, lambda pipe, key: pipe.unlink(key))


class Copies:
    """Writes into the new partitions, collected until there are enough for a round trip.

    Args:
        leases: Of all new partitions; every write is refused once another attempt has one.
    """

    def __init__(self, client: Redis, leases: Mapping[PartitionKeys, HeldLease]) -> None:
        self.copied = Carried()
        self._client = client
        self._leases = leases
        self._waiting: defaultdict[PartitionKeys, list[tuple[str | bytes, list[Value]]]]
        self._waiting = defaultdict(list)
        self._bytes = 0

    def write(self, at: PartitionKeys, key: str | bytes, command: str, *words: Value) -> None:
        """Add a command on a key of a new partition.

        Raises:
            LeaseLost: As `flush`.
        """
        self._waiting[at].append((key, [len(words), command, *words]))
        self._bytes += _CALL_BYTES + sum(map(_size, words))
        if self._bytes > _MOST_BYTES:
            self.flush()

    def put(
        self,
        at: PartitionKeys,
        key: str | bytes,
        fields: Iterable[tuple[Value, Value]],
        command: str = "HSET",
    ) -> None:
        """Add fields of a hash, or by the command MEMBERS those whom a sync knows."""
        for part in in_parts(list(fields), _MOST_PAIRS):
            self.write(at, key, command, *chain.from_iterable(part))

    def flush(self) -> None:
        """Send what was collected.

        Raises:
            LeaseLost: Another attempt copies by now, or has done all of it.
            RedisUnavailable: Redis is full, too, as it holds all of it twice for a while.
        """
        self._send(self._waiting)
        self._waiting.clear()
        self._bytes = 0

    def hold(self) -> None:
        """Go on holding the leases, with nothing to write."""
        self._send({at: [] for at in self._leases})

    def empty(self, partitions: Sequence[PartitionKeys]) -> None:
        """Delete what an earlier attempt has copied."""
        tags = {partition.tag.encode(): partition for partition in partitions}
        for found in scan_keys(self._client, partitions, "*"):
            for key in found:
                if _part(key, partitions) not in {"", _LEASE}:
                    self.write(tags[_tag(key)], key, "UNLINK")
        for partition in partitions:
            self.write(partition, partition.lease, "HDEL", "floor", "aged", "aged_until")
        self.flush()

    def let_go(self) -> None:
        """Give the leases back that this attempt still holds."""
        calls = [ScriptCall((one.partition.lease,), (one.token,)) for one in self._leases.values()]
        opened.run(self._client, "let_go", calls)

    def _send(
        self, writes: Mapping[PartitionKeys, Sequence[tuple[str | bytes, list[Value]]]]
    ) -> None:
        calls = []
        for at, waiting in writes.items():
            names: dict[str | bytes, int] = {at.lease: 1}
            args: list[Value] = [self._leases[at].token, self._leases[at].length_ms]
            for key, words in waiting:
                args += (names.setdefault(key, len(names) + 1), *words)
            calls.append(ScriptCall(list(names), args))
        answers = opened.run(self._client, "copy", calls, replicated=True) if calls else []
        if -1 in answers:
            raise LeaseLost(
                "Another attempt changes the number of partitions by now, or has done it."
            )
        self.copied.profiles += sum(answers)


def _size(word: Value) -> int:
    return len(word) if isinstance(word, str | bytes) else 8


class Entry(NamedTuple):
    """An entry of a stream of a former partition."""

    ms: int
    number: int
    partition: PartitionKeys
    fields: Mapping[bytes, bytes]

    @property
    def digest(self) -> bytes:
        """Return the digest of the profile that a delivery is about; none if nobody can read it."""
        try:
            return decode_header(self.fields.get(b"h", b"")).digest
        except PayloadRefused:
            return b""


@dataclass(slots=True)
class Copy:
    """Copies all that the partitions of one destination hold.

    Args:
        partition: Any of them.
        numbering: The present one, and the number to come.
        tell: Hears from time to time what was copied.
    """

    client: Redis
    partition: PartitionKeys
    numbering: Numbering
    copies: Copies
    tell: Callable[[Carried], None]
    retention_ms: int
    _sums: defaultdict[tuple[PartitionKeys, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter), init=False
    )
    _told_at: float = field(default_factory=time.monotonic, init=False)

    def run(self) -> None:
        """Copy everything; the former partitions stay as they are.

        Raises:
            OperationsMustAct: They hold something that this version does not know.
            LeaseLost: Another attempt is at work.
        """
        self._copy_ages()
        streams, positions = self._copy_keys()
        for partition in self._partitions:
            self._copy_sums(partition)
            self._copy_intents(partition)
            self._copy_hash(partition.who, self._by_digest)
            self._copy_hash(partition.forwards, self._by_digest, self._followed)
            self._copy_hash(partition.changes, self._by_digest)
            self._copy_hash(partition.dead_letters_leaving, self._by_dead_letter)
            self._copy_reached(partition)
            self._copy_dead_letters(partition)
        for part in ("retry", "synctokens"):
            self._copy_everywhere(part)
        for part in sorted(positions):
            self._copy_positions(part)
        for name in sorted(streams):
            self._copy_deliveries(name)
        self._copy_log("history", lambda line: str(orjson.loads(line)[1]))
        self._copy_log("responses", lambda _: "")
        self._write_sums()
        self.copies.flush()

    @property
    def _partitions(self) -> list[PartitionKeys]:
        return [self._at(number) for number in self.numbering.numbers]

    @property
    def _targets(self) -> list[PartitionKeys]:
        return [self._at(number) for number in self.numbering.following.numbers]

    def _at(self, number: int) -> PartitionKeys:
        return replace(self.partition, number=number)

    def _of(self, digest: bytes) -> PartitionKeys:
        """Return the new partition of a profile, or of a stable id."""
        return self._at(self.numbering.following.of_digest(digest))

    def _home(self, number: int) -> PartitionKeys:
        """Return the new partition for counts, and for lines without a profile."""
        following = self.numbering.following
        return self._at(following.first + number % following.count)

    def _by_digest(self, name: bytes, _: bytes) -> PartitionKeys:
        return self._of(bytes.fromhex(name[: 2 * DIGEST_BYTES].decode()))

    def _by_dead_letter(self, name: bytes, text: bytes) -> PartitionKeys:
        digest = digest_of_dead_letter(parse_dead_letter(text))
        return self._of(bytes.fromhex(digest)) if digest else self._home(int(name.split(b".")[1]))

    def _step(self) -> None:
        if time.monotonic() > self._told_at + _TOLD_SECONDS:
            self._told_at = time.monotonic()
            self.tell(self.copies.copied)

    def _copy_ages(self) -> None:
        """Keep up to which ids none are given again, and since when older entries may wait."""
        names = ("floor", "aged", "aged_until")
        rows = ask_each(self.client, self._partitions, lambda pipe, at: pipe.hmget(at.lease, names))
        for name, choose, texts in zip(
            names, (max, min, max), zip(*rows, strict=True), strict=True
        ):
            known = [int(text) for text in texts if text]
            if known:
                for at in self._targets:
                    self.copies.write(at, at.lease, "HSET", name, choose(known))

    def _copy_keys(self) -> tuple[set[str], set[str]]:
        """Copy what a partition has many of; return the names of streams, and of positions."""
        streams: set[str] = set()
        positions = {"jobs"}
        for found in scan_keys(self.client, self._partitions, "*"):
            self._step()
            texts: dict[bytes, PartitionKeys] = {}
            for key in found:
                part = _part(key, self._partitions)
                if part in _NOT_COPIED or part in _ONE_EACH:
                    continue
                if digest := _digest_of_text(key):
                    texts[key] = self._of(digest)
                elif part.startswith("s:"):
                    streams.add(part.removeprefix("s:"))
                elif part.startswith("jobs:"):
                    positions.add(part)
                elif part.startswith(_MEMBERS):
                    self._copy_members(key.decode())
                elif _OF_PERSON.fullmatch(part):
                    self._copy_arrival_marks(part, key.decode())
                elif not part.startswith("carried:"):
                    raise OperationsMustAct(
                        f"This version of segrelay does not know what {key!r} in Redis is: use the"
                        " version that wrote it. Nothing was moved."
                    )
            self._copy_texts(texts)
        return streams, positions

    def _copy_members(self, key: str) -> None:
        """Copy the members that a sync knows."""
        for texts in scan_fields(self.client, key):
            into: defaultdict[PartitionKeys, list[tuple[Value, Value]]] = defaultdict(list)
            for number, text in texts:
                for name, mark in unpack_members(text) if number.isdigit() else ():
                    into[self._by_profile(name.encode(), mark)].append((name, mark))
            for at, members in into.items():
                self.copies.put(at, at.tag + key.partition("}")[2], members, "MEMBERS")

    def _by_profile(self, name: bytes, _: bytes) -> PartitionKeys:
        return self._of(digest_of(PROTECTION.unseal_name(name.decode())))

    def _copy_texts(self, texts: Mapping[bytes, PartitionKeys]) -> None:
        """Copy ledgers, records of stable ids, and lists of them, with the ends of their lives."""
        get, end = (lambda pipe, key: pipe.get(key)), (lambda pipe, key: pipe.pexpiretime(key))
        found = ask_each(self.client, texts, get, end)
        for (key, at), text, end_ms in zip(texts.items(), found[::2], found[1::2], strict=True):
            if text is not None:
                name = at.tag.encode() + key.partition(b"}")[2]
                lasts = ("PXAT", end_ms) if end_ms > 0 else ()
                self.copies.write(at, name, "SET", text, *lasts)

    def _copy_hash(
        self,
        key: str,
        route: Callable[[bytes, bytes], PartitionKeys],
        change: Callable[[bytes], bytes] = lambda value: value,
    ) -> None:
        """Copy the fields of a hash, each to the partition that `route` tells from it."""
        for rows in scan_fields(self.client, key):
            into: defaultdict[PartitionKeys, list[tuple[Value, Value]]] = defaultdict(list)
            for name, value in rows:
                into[route(name, value)].append((name, change(value)))
            for at, fields in into.items():
                self.copies.put(at, at.tag + key.partition("}")[2], fields)

    def _copy_arrival_marks(self, part: str, key: str) -> None:
        """Copy the marks of a person's letters that have come from their former identity.

        They tell nothing of the person, so that every partition gets them, under the ids that the
        letters would have there; they lapse where nobody deletes them.
        """
        marks: Any = self.client.hgetall(key)
        for at in self._targets:
            fields: list[tuple[Value, Value]] = []
            for mark, value in marks.items():
                kind, _, dead_letter = mark.decode().partition("|")
                fields.append((f"{kind}|{dead_letter_id_in(at, dead_letter)}", value))
            self.copies.put(at, at.tag + part, fields)
            self.copies.write(at, at.tag + part, "PEXPIRE", self.retention_ms)

    def _expire(self, at: PartitionKeys, part: str, end_ms: int) -> None:
        if end_ms > 0:
            self.copies.write(at, at.tag + part, "PEXPIREAT", end_ms)

    def _copy_sums(self, partition: PartitionKeys) -> None:
        """Add up the counts of partitions; `_count` corrects them for entries and dead letters."""
        home = self._home(partition.number)
        pipe = self.client.pipeline(transaction=False)
        for part in _SUMS:
            pipe.hgetall(partition.tag + part)
        pipe.get(partition.responseslost)
        *hashes, lost = pipe.execute()
        for part, counts in zip(_SUMS, hashes, strict=True):
            sums = self._sums[home, part]
            for name, count in counts.items():
                if name == b"refused_ms":
                    sums["refused_ms"] = max(sums["refused_ms"], int(count))
                else:
                    sums[name.decode()] += int(count)
        self._sums[home, "responseslost"][""] += int(lost or 0)

    def _write_sums(self) -> None:
        for (at, part), sums in self._sums.items():
            counts = [(name, count) for name, count in sums.items() if count]
            if part != "responseslost":
                self.copies.put(at, at.tag + part, counts)
            elif counts:
                self.copies.write(at, at.responseslost, "SET", sums[""])
        ends = ask_each(
            self.client, self._partitions, lambda pipe, at: pipe.pexpiretime(at.jobtimes)
        )
        for at in self._targets:
            self._expire(at, "jobtimes", max(ends))

    def _count(self, number: int, at: PartitionKeys, kind: str, stream: str, reason: str) -> None:
        """Count an entry or a dead letter where it is, instead of at home."""
        names = [outcome_field(kind, stream, reason)]
        if job := job_of_lane(split_stream_name(stream)[0]):
            names.append(f"job|{job}|{kind}")
            names += [f"job|{job}|{kind}|{reason}"] if reason else []
        self._sums[self._home(number), "counts"].subtract(names)
        self._sums[at, "counts"].update(names)

    def _copy_intents(self, partition: PartitionKeys) -> None:
        """Copy the intents, split: each partition gets the deliveries of its own profiles."""
        ends: Any = self.client.hgetall(partition.open)
        for rows in scan_fields(self.client, partition.intents):
            for intent_id, text in rows:
                intent = Intent.loads(intent_id.decode(), text, 0)
                shares: defaultdict[PartitionKeys, list[IntendedDelivery]] = defaultdict(list)
                for one in intent.deliveries:
                    shares[self._of(one.digest)].append(one)
                for at, own in shares.items():
                    share = replace(intent, deliveries=tuple(own)).dumps()
                    self.copies.put(at, at.intents, [(intent_id, share)])
                    if intent_id in ends:
                        self.copies.put(at, at.open, [(intent_id, ends[intent_id])])

    def _copy_reached(self, partition: PartitionKeys) -> None:
        rows: Any = self.client.zrange(partition.reached, 0, -1, withscores=True)
        for digest, score in rows:
            at = self._by_digest(digest, b"")
            self.copies.write(at, at.reached, "ZADD", score, digest)

    def _followed(self, record: bytes) -> bytes:
        """Return the record of a person who was renamed, with the new number of their partition."""
        try:
            forward = Forward.loads(record)
        except (ValueError, KeyError, TypeError):
            return record  # the mark of a member
        if forward.moving is Moving.ARRIVING:
            return record
        return replace(forward, partition=self.numbering.following.of(forward.to)).dumps()

    def _copy_dead_letters(self, partition: PartitionKeys) -> None:
        """Copy the dead letters, under the ids that they have in their new partitions."""
        seen: set[bytes] = set()
        for rows in scan_fields(self.client, partition.dead_letters, _DEAD_LETTERS):
            self._step()
            new = [row for row in rows if row[0] not in seen]
            seen.update(name for name, _ in new)
            dead_letters = [parse_dead_letter(text) for _, text in new]
            told = ask_each(
                self.client,
                dead_letters,
                lambda pipe, one: pipe.zscore(partition.dead_letter_times, one["id"]),
                lambda pipe, one: pipe.hget(partition.causes, one["cause"]),
            )
            for (name, text), one, died, sample in zip(
                new, dead_letters, told[::2], told[1::2], strict=True
            ):
                at = self._by_dead_letter(name, text)
                there, cause = dead_letter_id_in(at, one["id"]), one["cause"]
                self.copies.put(at, at.dead_letters, [(there, _dead_letter_in(at, there, text))])
                died_ms = round(died or one["last_at_ms"])
                self.copies.write(at, at.dead_letter_times, "ZADD", died_ms, there)
                self.copies.write(at, at.causes, "HSETNX", cause, sample or b"{}")
                self.copies.write(at, at.causes, "HINCRBY", f"{cause}|n", 1)
                self._count(partition.number, at, "accepted", one["stream"], "")
                self._count(partition.number, at, "dead", one["stream"], one["reason"])
            self.copies.copied.dead_letters += len(new)

    def _copy_everywhere(self, part: str) -> None:
        """Copy a hash that every partition needs whole; of two values the first one holds."""
        found = ask_each(
            self.client, self._partitions, lambda pipe, at: pipe.hgetall(at.tag + part)
        )
        fields: dict[Value, Value] = {}
        for each in reversed(found):
            fields |= each
        for at in self._targets:
            self.copies.put(at, at.tag + part, fields.items())

    def _copy_positions(self, part: str) -> None:
        """Copy the positions of jobs to every partition.

        The latest holds; at the same one, what was added there is what all of them say. Of the
        epochs the highest holds.
        """
        get, end = (
            lambda pipe, at: pipe.hgetall(at.tag + part),
            lambda pipe, at: pipe.pexpiretime(at.tag + part),
        )
        found = ask_each(self.client, self._partitions, get, end)
        fields: dict[Value, Value] = {}
        added: dict[bytes, tuple[bytes, set[int]]] = {}
        for stored in found[::2]:
            for job, position in stored.items():
                if job.endswith(b"|epoch"):
                    fields[job] = max(int(fields.get(job, 0)), int(position))
                elif not job.endswith(b"|chunk"):
                    numbers = {int(n) for n in stored.get(job + b"|chunk", b"").split(b",") if n}
                    known, others = added.get(job, (position, set()))
                    if known <= position:
                        both = numbers | others if known == position else numbers
                        added[job] = position, both
        for job, (position, numbers) in added.items():
            fields[job] = position
            fields[job + b"|chunk"] = ",".join(map(str, sorted(numbers)))
        for at in self._targets:
            self.copies.put(at, at.tag + part, fields.items())
            self._expire(at, part, max(found[1::2]))

    def _copy_deliveries(self, name: str) -> None:
        """Copy what waits in a stream of all partitions, in the order in which it was accepted."""
        last: dict[PartitionKeys, tuple[int, int]] = {}
        for entries in self._entries(f"s:{name}"):
            aside = ask_each(
                self.client,
                entries,
                lambda pipe, one: pipe.hget(one.partition.aside, f"{name}|{one.ms}-{one.number}"),
            )
            for one, backoff in zip(entries, aside, strict=True):
                digest, number = one.digest, one.partition.number
                at = self._of(digest) if digest else self._home(number)
                if at not in last:
                    self.copies.write(at, at.streams, "SADD", name)
                entry_id = self._add(at, at.stream(name), one, last)
                if backoff:
                    self.copies.put(at, at.aside, [(f"{name}|{entry_id}", backoff)])
                self._count(number, at, "accepted", name, "")
            self.copies.copied.deliveries += len(entries)

    def _copy_log(self, part: str, digest_of_line: Callable[[bytes], str]) -> None:
        """Copy a stream whose entries are not deliveries."""
        last: dict[PartitionKeys, tuple[int, int]] = {}
        for entries in self._entries(part):
            for one in entries:
                digest = digest_of_line(next(iter(one.fields.values()), b""))
                home = self._home(one.partition.number)
                at = self._of(bytes.fromhex(digest)) if digest else home
                self._add(at, at.tag + part, one, last)

    def _entries(self, part: str) -> Iterator[list[Entry]]:
        """Yield the entries of a stream of all partitions in the order of their ids."""
        self._step()
        streams = [
            self._entries_of(partition, partition.tag + part) for partition in self._partitions
        ]
        entries = merge(*streams, key=lambda one: (one.ms, one.number))
        while some := list(islice(entries, _ENTRIES)):
            yield some
            self._step()

    def _entries_of(self, partition: PartitionKeys, key: str) -> Iterator[Entry]:
        start = "-"
        while True:
            rows: Any = self.client.xrange(key, start, count=_ENTRIES)
            for entry_id, fields in rows:
                ms, _, number = entry_id.decode().partition("-")
                yield Entry(int(ms), int(number), partition, fields)
            if not rows:
                return
            start = f"({rows[-1][0].decode()}"

    def _add(
        self,
        at: PartitionKeys,
        key: str,
        entry: Entry,
        last: dict[PartitionKeys, tuple[int, int]],
    ) -> str:
        """Add an entry under its id, or the next one if an entry of another partition has that."""
        ms, number = last.get(at, (0, 0))
        ms, number = max((entry.ms, entry.number), (ms, number + 1))
        last[at] = ms, number
        fields = chain.from_iterable(entry.fields.items())
        self.copies.write(at, key, "XADD", f"{ms}-{number}", *fields)
        return f"{ms}-{number}"


def _part(key: bytes, partitions: Iterable[PartitionKeys]) -> str:
    """Return the part of a partition that a key names; "" for a key of other partitions."""
    if _tag(key).decode(errors="replace") not in {partition.tag for partition in partitions}:
        return ""
    return key.partition(b"}")[2].decode(errors="replace")


def _tag(key: bytes) -> bytes:
    return key.partition(b"}")[0] + b"}"


def _digest_of_text(key: bytes) -> bytes:
    """Return the digest in the key of a ledger, a stable id or a list of them; else nothing."""
    part = key.partition(b"}")[2]
    is_text = part[:1] in _TEXTS and len(part) == 1 + DIGEST_BYTES
    return part[1:] if is_text else b""


def _dead_letter_in(at: PartitionKeys, dead_letter_id: str, text: bytes) -> bytes:
    """Return the text of a dead letter in another partition; its profile may be no JSON."""
    digest = digest_of_dead_letter(parse_dead_letter(text))
    text = unseal_dead_letter(text)
    try:
        dead_letter, profile = orjson.loads(text), b""
    except orjson.JSONDecodeError:
        head, mark, rest = text.partition(PROFILE)
        dead_letter, profile = orjson.loads(head + b"}"), mark + rest
    there = orjson.dumps({**dead_letter, "id": dead_letter_id, "partition": at.number})
    moved = there[:-1] + profile if profile else there
    return seal_dead_letter(dead_letter_id, digest, moved)
