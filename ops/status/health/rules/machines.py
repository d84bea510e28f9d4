"""Rules about workers, Redis and clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from ops.status.health.facts import Facts
from ops.status.health.problem import ATTENTION, ILL, HealthProblem
from worker.contract.processes.workers import WORKER

NEARLY_FULL: Final = 0.7
"""Share of `maxmemory` from which Redis is nearly full; producers stop at 0.8."""
CLOCK_SECONDS: Final = 5.0
CLOCK_ILL_SECONDS: Final = 60.0
UNSEEN_MS: Final = 30_000
"""Milliseconds after which a process counts as gone; each says every five seconds that it runs."""
_SHOW: Final = "segrelay redis status"
_CUSTOMERS_NOTICE: Final = ("appendonly is off", "throws events away", "nothing is accepted")
"""Words in the descriptions of those weaknesses of Redis that lose data or stop deliveries."""


def workers(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if no worker runs, or workers differ in configuration or version."""
    processes = [one for one in facts.status["processes"] if one["kind"] == WORKER]
    if not processes and facts.redis.takes_writes:  # else they can't say that they run
        message = "no worker has been seen for 10 s, so nothing is delivered"
        yield HealthProblem("no_worker", ILL, "", message, "segrelay up, or segrelay worker")
    older = [f"{one['host']}:{one['pid']}" for one in processes if not one["current"]]
    if older:
        message = f"workers were started with another configuration: {', '.join(older)}"
        yield HealthProblem("worker_configuration", ILL, "", message, "restart these workers")
    versions = {one["version"] or "an older one" for one in processes}
    if len(versions) > 1:
        message = f"workers have different versions of segrelay: {', '.join(sorted(versions))}"
        yield HealthProblem("worker_version", ATTENTION, "", message, "restart the older workers")


def too_few_workers(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if fewer workers run than are configured, unless none runs."""
    count = sum(one["kind"] == WORKER for one in facts.status["processes"])
    if 0 < count < facts.workers_wanted:
        message = f"{count:,} of {facts.workers_wanted:,} workers run (operate.workers)"
        yield HealthProblem("too_few_workers", ATTENTION, "", message, "segrelay worker")


def companions(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if Flower or the metrics are down; one that has never run is not missed."""
    for kind, seen_ms in facts.companions.items():
        unseen_ms = facts.now_ms - seen_ms
        if unseen_ms > UNSEEN_MS:
            message = f"configured, but not seen for {unseen_ms // 1_000:,} s"
            mend = f"segrelay {kind}"
            yield HealthProblem(f"{kind}_down", ATTENTION, "", message, mend, seen_ms)


def partitions(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem while the number of partitions is changed, an ill one if nobody goes on."""
    document = facts.status["partitions"]
    target = document.get("changing_to")
    if not target:
        return
    message = (
        f"being changed from {document['count']:,} to {target:,}; nothing is delivered meanwhile"
    )
    severity, mend = ATTENTION, "wait until it is done"
    if facts.now_ms - document["seen_ms"] > UNSEEN_MS:
        message += ", and nobody goes on with it"
        severity, mend = ILL, f"segrelay redis partitions {target}"
    yield HealthProblem("partitions_change", severity, "", message, mend, document["seen_ms"])


def clocks(facts: Facts) -> Iterator[HealthProblem]:
    """Yield machines whose clock differs from that of Redis.

    Machines may share a name, as containers or clones do: the process that is furthest off counts.
    """
    ahead: dict[str, float] = {}
    for one in facts.status["processes"]:
        seconds = float(one["clock_ahead_seconds"])
        ahead[one["host"]] = max(ahead.get(one["host"], 0.0), seconds, key=abs)
    ahead.setdefault("this machine", facts.redis.clock_ahead_seconds)
    for host, seconds in ahead.items():
        if abs(seconds) >= CLOCK_SECONDS:
            severity = ILL if abs(seconds) >= CLOCK_ILL_SECONDS else ATTENTION
            word = "ahead of" if seconds > 0 else "behind"
            message = f"its clock is {abs(seconds):,.0f} s {word} that of Redis"
            yield HealthProblem("clock_differs", severity, host, message, "set the clock by NTP")


def messages(facts: Facts) -> Iterator[HealthProblem]:
    """Yield workers that found messages in the broker which are not ours."""
    for one in facts.status["processes"]:
        if one["refused_messages"]:
            message = (
                f"{one['refused_messages']:,} messages of the broker were no messages of segrelay;"
                " they were thrown away, and no event was lost: something else writes to the broker"
            )
            mend = "give segrelay a Redis or a user of its own, then restart the worker"
            place = f"{one['host']}:{one['pid']}"
            yield HealthProblem("messages_refused", ATTENTION, place, message, mend)


def memory(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if Redis is full, or nearly."""
    redis = facts.redis
    if redis.full:
        yield HealthProblem("redis_full", ILL, "", redis.full, _SHOW)
    elif redis.most and redis.used >= NEARLY_FULL * redis.most:
        message = (
            f"Redis uses {redis.used // 1_000_000:,} of {redis.most // 1_000_000:,} MB; producers"
            " stop at 80%: raise its maxmemory"
        )
        yield HealthProblem("redis_nearly_full", ATTENTION, "", message, _SHOW)


def durability(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if Redis can't write to its disk, or is less durable than it has to be."""
    refuses = "" if facts.redis.takes_writes else ", so it refuses writes and nothing is delivered"
    for failure in facts.redis.failing:
        message = f"{failure}{refuses}: make room on its disk, and look at its log"
        yield HealthProblem("redis_disk_fails", ILL, "", message, _SHOW)
    for weakness in facts.redis.weak:
        severity = ILL if any(words in weakness for words in _CUSTOMERS_NOTICE) else ATTENTION
        yield HealthProblem("redis_not_durable", severity, "", weakness, _SHOW)


def emptied(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if Redis came back empty, with what is lost and how to get it back."""
    if not facts.redis.losses:
        return
    loss = facts.redis.losses[0]
    last = datetime.fromtimestamp(loss.last_seen_ms / 1_000, UTC).isoformat(timespec="seconds")
    audiences = ", ".join(facts.audiences)
    name = f"The node {loss.node} of Redis" if loss.node else "Redis"
    message = (
        f"{name} came back empty: what waited, the dead letters, the ledger, jobs and members of"
        f" syncs as of {last} are gone there. Bring back the audiences ({audiences}) by a backfill"
        " of each, then say that it was seen"
    )
    mend = "segrelay backfill start …; segrelay redis acknowledge"
    yield HealthProblem("redis_emptied", ILL, "", message, mend, loss.noticed_ms)
