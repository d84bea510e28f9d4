"""Syncs in Redis: the state of each run with its lock, the members with their marks, and tokens.

A run leaves to the next step how far it has come, and what it found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.steps import StepState, StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, partition_of
from segrelay.worker.contract.ledger import AUDIENCE_NAME, LastDelivered, standing, unpack_all
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.accept import ENTRANT_DAYS, field_of_member, key_of_member
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.words import Direction

MOST_GONE: Final = 100
MOST_GONE_SHARE: Final = 0.1
"""The share of members, or the number if it is smaller, that may leave between two runs without a
confirmation: a file that was cut at the end of a row looks whole."""
NEVER_ASKED: Final = 9
"""The number of members whose leaving is believed in any audience."""
CERTAIN: Final = frozenset({"done", "unchanged"})
"""Outcomes of runs after which it is known who is in the audience."""
TOLERANCE_SHARE: Final = 0.01
"""The share of members that may be missing: people join and leave while a scan is under way."""


_CARRIED: Final = (
    "at_us", "repairs_until_us", "known", "repaired_again_ms", "failures", "refused", "settled",
    "last",
)  # fmt: skip
"""The fields that a run has from the one before."""
_TOLD: Final = (
    "at_us", "begun_ms", "ended_ms", "rows", "bad", "unplaced", "entered", "changed", "left",
    "repaired", "stayed", "restarts", "problem",
)  # fmt: skip


class Phase(StrEnum):
    """The phase of a run."""

    IDLE = "idle"
    SCAN = "scan"
    COUNT = "count"
    EXITS = "exits"
    CONFIRM = "confirm"
    """The leavers are known, and an operator has to confirm them."""


@dataclass(slots=True)
class Run(StepState):
    """The state of a sync.

    Args:
        audience: The audience that was configured when the run began.
        number: The number of the run, which the marks of members hold that it has seen.
        start: The token of the next page.
        origin: The version of the file that is scanned; "" where the members come from Lytics.
        at_us: The begin of the scan by the source's clock: the time of all its events.
        repairs_until_us: The time up to which a delivery in the ledger may be found to be wrong:
            with a file, the time of the file before. People move while an export is made, and its
            own time is the end of that.
        destinations: The names of the destinations that are compared.
        known: The names of destinations that have had a whole run.
        next_partition: The index, among the partitions of all destinations, of the next to be
            counted or asked for exits.
        rows: The number of rows that came.
        bad: The number of rows that could not be read.
        unplaced: The number of rows without an identity.
        first_total, last_total: The number of members that the first and the last page told; -1 =
            none.
        restarts: The number of times that the scan began anew.
        seen, gone: The number of known members that came in this run, and that did not, by
            destination.
        repairs_again: True if it also repairs what an earlier run has repaired, and still differs.
        repaired_again_ms: The begin of the last such run.
        repaired: The number of people whom the ledger had otherwise than the source, counted at
            each destination.
        stayed: The number of people who were missing in the scan, and in the audience at a second
            look.
        allowed: The number of members that may be gone, as a person has said.
        doubt: The reason why a person has to confirm.
        failures: The number of steps in a row that came to nothing.
        refused: True if trying again does not help: somebody has to act.
        settled: The origin of the last scan after which it was known who has left.
        problem: The problem that stopped the last step; "" = none.
        begun_ms, ended_ms, next_ms: The times of its begin, its end and its next step, by Redis'
            clock.
        last: The result of the last run that ended.
    """

    begins_anew = False
    audience: str = ""
    number: int = 0
    phase: Phase = Phase.IDLE
    start: str = ""
    origin: str = ""
    at_us: int = 0
    repairs_until_us: int = 0
    destinations: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    next_partition: int = 0
    rows: int = 0
    bad: int = 0
    unplaced: int = 0
    first_total: int = -1
    last_total: int = -1
    restarts: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    entered: int = 0
    changed: int = 0
    left: int = 0
    repaired: int = 0
    repairs_again: bool = False
    repaired_again_ms: int = 0
    stayed: int = 0
    allowed: int = 0
    doubt: str = ""
    failures: int = 0
    refused: bool = False
    settled: str = ""
    problem: str = ""
    begun_ms: int = 0
    ended_ms: int = 0
    next_ms: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def asks(self) -> str:
        """The reason why a person has to confirm the last whole run; "" = nobody has to."""
        is_next = self.phase in {Phase.SCAN, Phase.COUNT} and not self.allowed
        is_open = self.phase is Phase.CONFIRM or is_next
        return str(self.last["doubt"]) if is_open and self.last.get("doubt") else ""

    @property
    def doubted(self) -> tuple[int, int] | None:
        """The number of the run that a person may confirm, and of the members that it lacks."""
        is_open = self.phase is Phase.CONFIRM or self.is_under_way
        is_doubted = is_open and self.last.get("outcome") == "doubted"
        return (int(self.last["run"]), int(self.last["gone"])) if is_doubted else None

    @property
    def members(self) -> int:
        """The number of members that the last run knew, with those who wait for a person's word."""
        is_doubted = self.last.get("outcome") == "doubted"
        return int(self.last.get("members", 0) + is_doubted * self.last.get("gone", 0))

    @property
    def is_under_way(self) -> bool:
        return self.phase in {Phase.SCAN, Phase.COUNT, Phase.EXITS}

    @property
    def has_ended(self) -> bool:
        return self.phase is Phase.IDLE

    def was_done_with(self, at_us: int, origin: str) -> bool:
        """Say whether the run before this one has finished with a source of that time and state.

        A run that began again has not: whom only the file before had counts as seen.
        """
        return (
            self.last.get("outcome") in CERTAIN
            and self.last.get("at_us") == at_us
            and self.settled == origin
            and not self.last.get("restarts")
            and set(self.destinations) <= set(self.known)
        )

    def is_repair_due(self, now_ms: int, every_seconds: float) -> bool:
        """Say whether a run that begins now repairs again what still differs."""
        return not 0 <= now_ms - self.repaired_again_ms < 1000 * every_seconds

    def following(
        self, audience: str, destinations: list[str], now_ms: int, *, repairs_again: bool = False
    ) -> Run:
        """Return a new run, which follows this one."""
        return Run(
            audience=audience,
            number=self.number + 1,
            phase=Phase.SCAN,
            destinations=destinations,
            repairs_again=repairs_again,
            begun_ms=now_ms,
            **{name: getattr(self, name) for name in _CARRIED},
        )

    def scan_anew(self) -> None:
        """Begin the scan again within this run; people who were seen count as seen."""
        self.phase, self.start, self.next_partition = Phase.SCAN, "", 0
        self.rows = self.bad = self.unplaced = 0
        self.first_total = self.last_total = -1
        self.restarts += 1

    def doubts(self) -> str:
        """Return why a person has to confirm those who are gone; "" = nobody has to."""
        gone = max(self.gone.values(), default=0)
        if gone <= self.allowed:
            return ""
        if self.bad:
            return f"{plural(self.bad, 'row')} can't be read, {plural(gone, 'member')} missing"
        if not self.rows and self.last_total < 0:
            return f"the file has no rows, {plural(gone, 'member')} missing"
        if self.rows < self._expected():
            return (
                f"the scan is incomplete: {self.rows:,} of {plural(self.last_total, 'member')}"
                f" came, {gone:,} missing"
            )
        members = gone + max(self.seen.values(), default=0)
        most = max(NEVER_ASKED, min(MOST_GONE, int(MOST_GONE_SHARE * members)))
        if gone > most:
            return f"{gone:,} of {plural(members, 'member')} gone, at most {most:,} believed"
        return ""

    def _expected(self) -> int:
        """Return the smallest number of rows with which a scan counts as complete."""
        totals = [total for total in (self.first_total, self.last_total) if total >= 0]
        return min(totals) - int(TOLERANCE_SHARE * max(totals)) if totals else 0

    def end(self, now_ms: int, *, outcome: str) -> None:
        """End the run, and keep its results as those of the last run."""
        self.phase, self.ended_ms, self.start = Phase.IDLE, now_ms, ""
        self.last = {"outcome": outcome, **self.results()}

    def results(self) -> dict[str, Any]:
        """Return the result of the run, for people and machines."""
        return {
            "run": self.number,
            "total": self.last_total if self.last_total >= 0 else None,
            "members": max(self.seen.values(), default=self.last.get("members", 0)) + self.stayed,
            "gone": max(self.gone.values(), default=0),
            **{name: getattr(self, name) for name in _TOLD},
        }

    def line(self) -> str:
        """Return how far the run has come, in a few words."""
        counts = f"{self.entered:,} entered"
        if self.changed:
            counts += f", {self.changed:,} changed"
        repaired = f", {self.repaired:,} repaired" if self.repaired else ""
        match self.phase:
            case Phase.SCAN:
                total = f" of {self.last_total:,}" if self.last_total >= 0 else ""
                return f"scanned {self.rows:,}{total}, {counts}"
            case Phase.COUNT:
                return f"scanned {self.rows:,}, {counts}, counting who has left"
            case Phase.EXITS:
                gone = max(self.gone.values(), default=0)
                return (
                    f"{self.left:,} of {gone:,} who are missing have left, {self.stayed:,} stay"
                    f"{repaired}"
                )
            case Phase.CONFIRM:
                return f"waits for `segrelay sync confirm`: {self.doubt}"
            case Phase.IDLE:
                outcome = self.last.get("outcome", "done")
                if outcome == "unchanged":
                    return (
                        "unchanged: the newest file was compared before; one that was written to"
                        " just now waits for the next run"
                    )
                word = "done" if outcome in CERTAIN else outcome
                return f"{word}: {self.rows:,} scanned, {counts}, {self.left:,} left{repaired}"


_CLAIM: Final = load_script("claim", Path(__file__).parent)


class SyncStore(StepStore[Run]):
    """The record of one sync in Redis: the state of its run, its lock and its members."""

    def __init__(self, client: Redis, name: str, settings: RedisSettings) -> None:
        super().__init__(client, keys.sync(name), f"sync '{name}'", Run)
        self.name = name
        self._settings = settings

    @property
    def token(self) -> str:
        """Return the name by which partitions know the step that has claimed them."""
        return f"step {self.epoch}"

    def claim(self, destinations: Sequence[str], *, forgets: bool = False) -> None:
        """Claim the members at destinations for this step, and exclude all earlier steps.

        Args:
            destinations: The names of the destinations.
            forgets: True if the members are deleted.

        Raises:
            LeaseLost: A later step has claimed one of the partitions.
        """
        args = (self.name, self.epoch, int(forgets))
        calls = [
            ScriptCall((partition.synctokens, partition.members(self.name)), args)
            for partition in self.partitions(destinations)
        ]
        answers = run_each(self._client, _CLAIM, calls)
        if not all(answers):
            raise self.lost()

    def partitions(self, destinations: Sequence[str]) -> list[PartitionKeys]:
        return [
            PartitionKeys(destination, number)
            for destination in destinations
            for number in range(self._settings.partitions)
        ]

    def marks(self, destination: str, profile_keys: Sequence[str]) -> dict[str, bytes]:
        """Return the marks of these people, by profile key, where they are members."""
        parts = self._by_partition(destination, profile_keys)
        pipe = self._client.pipeline(transaction=False)
        for partition, members in parts.items():
            pipe.hmget(partition.members(self.name), list(map(field_of_member, members)))
        return {
            key: mark
            for members, marks in zip(parts.values(), pipe.execute(), strict=True)
            for key, mark in zip(members, marks, strict=True)
            if mark is not None
        }

    def last_delivered(
        self, destination: str, audience: str, profile_keys: Sequence[str]
    ) -> dict[str, LastDelivered]:
        """Return each person's newest delivery about an audience; others are left out."""
        number: Any = self._client.hget(keys.NAMES, AUDIENCE_NAME + audience)
        if number is None:
            return {}
        parts = self._by_partition(destination, profile_keys)
        pipe = self._client.pipeline(transaction=False)
        for partition, people in parts.items():
            pipe.mget([partition.ledger(keys.digest_of(key)) for key in people])
        answers = pipe.execute()
        texts = {
            key.encode(): text
            for people, found in zip(parts.values(), answers, strict=True)
            for key, text in zip(people, found, strict=True)
        }
        records, _ = unpack_all(texts)  # one that can't be read says nothing
        standings = ((key.decode(), standing(one, int(number))) for key, one in records.items())
        return {key: last for key, last in standings if last}

    def _by_partition(
        self, destination: str, profile_keys: Sequence[str]
    ) -> dict[PartitionKeys, list[str]]:
        parts: dict[int, list[str]] = {}
        for key in profile_keys:
            parts.setdefault(partition_of(key, self._settings.partitions), []).append(key)
        return {PartitionKeys(destination, number): people for number, people in parts.items()}

    def pages(self, partition: PartitionKeys) -> Iterator[dict[str, bytes]]:
        """Yield the marks of a partition's members by key, in portions; some may come twice."""
        for fields in scan_fields(self._client, partition.members(self.name)):
            yield {key_of_member(field.decode()): mark for field, mark in fields}

    def members(self, partition: PartitionKeys) -> Iterator[tuple[str, bytes]]:
        """Yield key and mark of the members of one partition; some may come twice."""
        for found in self.pages(partition):
            yield from found.items()

    def count(self, destination: str) -> int:
        """Return how many members are known at a destination."""
        return count_members(self._client, self.name, self.partitions([destination]))

    def forget(self, destinations: Sequence[str]) -> None:
        """Delete state and members of the sync: its next run is the first. The lock must be held.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        self.claim(destinations, forgets=True)
        self.save(Run(), ends=True)


def count_members(client: Redis, sync: str, partitions: Iterable[PartitionKeys]) -> int:
    """Return how many members a sync knows in some partitions."""
    pipe = client.pipeline(transaction=False)
    for partition in partitions:
        pipe.hlen(partition.members(sync))
    return sum(pipe.execute())


NOT_KNOWN: Final = b"-"
"""Stands in a mark for a digest of the content that was not computed."""
_HASH_BYTES: Final = 6
_DAY_MS: Final = 86_400_000


class Mark(NamedTuple):
    """The mark of a member.

    Redis keeps one for each member, as a text: run and content, and the time if there is one.

    Attributes:
        run: The number of the last run that saw the member. 0 = none did, but an entrance was
            accepted: if the person leaves before a run, nobody else knows who they are.
        content: The digest of the member's profile; in run 0, the time (ms) at which the entrance
            was accepted.
        answered_us: The time of the exit in the ledger after which the sync has published an
            entrance; 0 = none.
    """

    run: int
    content: bytes = NOT_KNOWN
    answered_us: int = 0

    @property
    def is_name(self) -> bool:
        """Say whether no run has seen the person yet."""
        return self.run == 0

    def is_needed(self, last: LastDelivered | None, now_ms: int) -> bool:
        """Say whether the name of somebody whom no run has seen may be needed for an exit."""
        accepted_ms = int(self.content)
        if last and last[0] is Direction.ENTER:
            return True
        if last and last[1] > 1_000 * accepted_ms:
            return False
        return now_ms - accepted_ms < ENTRANT_DAYS * _DAY_MS

    def dumps(self) -> bytes:
        answered = b" %d" % self.answered_us if self.answered_us else b""
        return b"%d %s" % self[:2] + answered

    @classmethod
    def loads(cls, text: bytes) -> Mark:
        run, content, *answered = text.split(b" ")
        return cls(int(run), content, *map(int, answered))

    def differs(self, other: Mark) -> bool:
        """Say whether both marks have a digest of the content, and these differ."""
        return self.content != other.content and NOT_KNOWN not in (self.content, other.content)


def content_hash(row: dict[str, Any], fields: Iterable[str] | None) -> bytes:
    """Return the digest of some fields of a row; None = of all."""
    wanted = row.keys() - {SEGMENT_EVENTS} if fields is None else fields
    content = {name: row[name] for name in wanted if name in row}
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return PROTECTION.digest(text, _HASH_BYTES).hex().encode()
