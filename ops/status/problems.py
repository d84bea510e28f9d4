"""Problems of health: a stable name, the severity, since when, the cause, and what to do.

The facts by which health is judged, and their reading from Redis and the configuration.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from redis import Redis

from segrelay.ops.state.partitions import ask_each
from segrelay.ops.state.person import read_stopped_renamings
from segrelay.ops.status.status import read_status
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.publishing.writing import NoRoom, RoomMeter
from segrelay.producer.sync.run import Run
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.processes import FLOWER, METRICS, Sample, read_samples, read_seen
from segrelay.worker.contract.receivers import Receivers, read_receivers
from segrelay.worker.contract.redis.acts import Act, read_unfinished
from segrelay.worker.contract.redis.connection import (
    ServerState,
    ask_how_it_is,
    now_us,
    redis_errors,
)
from segrelay.worker.contract.redis.fitness import Usable, judge
from segrelay.worker.contract.redis.instance import Loss, read_losses
from segrelay.worker.contract.redis.url import found_by
from segrelay.worker.contract.settings import Settings

ProblemSeverity = Literal["ill", "attention"]
ILL: Final[ProblemSeverity] = "ill"
"""The severity of a problem that customers notice, or will soon."""
ATTENTION: Final[ProblemSeverity] = "attention"
"""The severity of a problem that needs a look this week."""


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """A problem that an operator has to see.

    Args:
        name: Stable, the same in every output; docs/operating.md lists them.
        subject: The destination, trigger, job … that has it; "" = all of segrelay.
        message: The cause, in words; more follows it in the same sentence.
        since_ms: The beginning, by Redis' clock; None = not known.
    """

    name: str
    severity: ProblemSeverity
    subject: str
    message: str
    command: str
    since_ms: int | None = None

    def __post_init__(self) -> None:
        """Remove the full stop from the message, because the command follows it in a line."""
        object.__setattr__(self, "message", self.message.removesuffix("."))

    def document(self) -> dict[str, Any]:
        """Return the problem as `status --json` prints it."""
        return {
            "name": self.name,
            "severity": self.severity,
            "subject": self.subject,
            "since": shown_ms(self.since_ms, "seconds") if self.since_ms else None,
            "message": self.message,
            "command": self.command,
        }


def line_of(problem: Mapping[str, Any]) -> str:
    """Return one line of text from a problem's document."""
    of = f" {problem['subject']}" if problem["subject"] else ""
    since = f" since {problem['since']}" if problem["since"] else ""
    return (
        f"{problem['severity']}: {problem['name']}{of}{since}: {problem['message']};"
        f" {problem['command']}"
    )


def reason_of(one: Mapping[str, Any]) -> str:
    """Return the reason for the state of a destination, trigger or job, and who caused it."""
    reason = str(one.get("message") or one["reason"])
    by = one.get("by")
    return f"{reason} (by {by})" if by and by != "segrelay" else reason


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, such as `vip 1,200, new 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """The facts about Redis by which its health is judged.

    Args:
        full: The reason why it accepts no more events; "" = it does.
        used, most: Bytes; most = 0 without a limit.
        takes_writes: False while it refuses them because of that.
        clock_ahead_seconds: The lead of this machine's clock over that of Redis.
        keys: The keys in its database; nearly all are ledgers.
    """

    full: str = ""
    used: int = 0
    most: int = 0
    weak: Sequence[str] = ()
    failing: Sequence[str] = ()
    takes_writes: bool = True
    losses: Sequence[Loss] = ()
    clock_ahead_seconds: float = 0.0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class SyncFacts:
    """The present run of a sync, and how often it runs."""

    run: Run
    every_seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts by which the rules of health judge.

    Args:
        workers_wanted: The configured number of workers; 0 = one is enough.
        stopped_renamings: Digests (hex) of people whose renaming was stopped, and since when (ms).
        unfinished: Acts that have left something half done, or are under way.
        companions: When Flower and the metrics, if they are configured, were last seen (ms).
    """

    status: Mapping[str, Any]
    now_ms: int = 0
    live_within_seconds: float = 60.0
    events_within_seconds: float = 0.0
    has_webhook: bool = False
    audiences: Sequence[str] = ()
    redis: RedisFacts = field(default_factory=RedisFacts)
    syncs: Mapping[str, SyncFacts] = field(default_factory=dict)
    receivers: Receivers = field(default_factory=Receivers)
    samples: Sequence[Sample] = ()
    workers_wanted: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    companions: Mapping[str, int] = field(default_factory=dict)
    stopped_renamings: Mapping[str, int] = field(default_factory=dict)
    unfinished: Sequence[Act] = ()


_DISK: Final = {
    "aof_last_write_status": "the last write to the append-only file failed",
    "aof_last_bgrewrite_status": "the last rewrite of the append-only file failed",
    "rdb_last_bgsave_status": "the last snapshot failed",
}


def read_facts(client: Redis, settings: Settings, places: Sequence[PartitionKeys] = ()) -> Facts:
    """Return the facts; `places` are all partitions, if they are known already."""
    at_us = now_us(client)
    ahead_seconds = time.time() - at_us / 1_000_000
    at_ms = at_us // 1_000
    audiences = {name for one in settings.triggers.values() for name in one.audiences}
    return Facts(
        status=read_status(client, settings, places),
        now_ms=at_ms,
        live_within_seconds=settings.operate.live_within_seconds,
        events_within_seconds=settings.operate.events_within_seconds,
        has_webhook=settings.producer.webhook is not None,
        audiences=sorted(audiences),
        redis=_redis(client, settings, ahead_seconds),
        syncs={
            name: SyncFacts(
                SyncStore(client, name, settings.redis.numbering).peek(), one.every_seconds
            )
            for name, one in settings.sync.items()
        },
        receivers=read_receivers(client, at_ms),
        samples=read_samples(client),
        workers_wanted=settings.operate.workers,
        limits={name: one.rate_per_minute for name, one in settings.destinations.items()},
        companions=_companions(client, settings),
        stopped_renamings=read_stopped_renamings(client, at_ms),
        unfinished=_unfinished(client),
    )


def _unfinished(client: Redis) -> list[Act]:
    """Return the unfinished acts whose new names still hold: one may have been taken back."""
    with redis_errors():
        slugs, destinations = ask_each(
            client, (keys.RENAMED, keys.MOVED), lambda pipe, key: pipe.hgetall(key)
        )
    hold = {
        "audience rename": slugs,
        "destination rename": destinations,
    }
    return [
        act
        for act in read_unfinished(client)
        if hold[act.what].get(act.subject.encode(), b"").decode() == act.arguments["to"]
    ]


def _companions(client: Redis, settings: Settings) -> dict[str, int]:
    configured = {FLOWER: settings.flower, METRICS: settings.metrics}
    seen = read_seen(client)
    return {kind: seen[kind] for kind, section in configured.items() if section and kind in seen}


def _redis(client: Redis, settings: Settings, ahead_seconds: float) -> RedisFacts:
    states = ask_how_it_is(client)
    room = RoomMeter(client, settings).memory()
    used, most = _fullest(states)
    return RedisFacts(
        full=room.message if isinstance(room, NoRoom) else "",
        used=used,
        most=most,
        weak=tuple(weak for state in states for weak in _weak(state, settings)),
        failing=tuple(failing for state in states for failing in _failing(state)),
        takes_writes=all(state.takes_writes for state in states),
        losses=read_losses(client),
        clock_ahead_seconds=ahead_seconds,
        keys=_keys(client, states),
    )


def _keys(client: Redis, states: Sequence[ServerState]) -> int:
    """Return the number of keys of all masters."""
    database = client.connection_pool.connection_kwargs.get("db", 0)
    return sum(int(one.info.get(f"db{database}", {}).get("keys", 0)) for one in states)


def _fullest(states: Sequence[ServerState]) -> tuple[int, int]:
    """Return the memory that is used and allowed at the fullest master."""
    memory = [(int(one.info["used_memory"]), int(one.info["maxmemory"])) for one in states]
    return max(memory, key=lambda pair: pair[0] / (pair[1] or float("inf")))


def _weak(state: ServerState, settings: Settings) -> Iterator[str]:
    verdict = judge(
        state.info,
        state.appendfsync,
        found_by=found_by(settings.redis.url),
        replicas=settings.redis.replicas,
    )
    for reason in verdict.warnings if isinstance(verdict, Usable) else (verdict.reason,):
        yield _at(state, reason)


def _failing(state: ServerState) -> Iterator[str]:
    for name, told in _DISK.items():
        if state.info.get(name, "ok") != "ok":
            yield _at(state, told)


def _at(state: ServerState, told: str) -> str:
    return f"{state.where}: {told}" if state.where else told
