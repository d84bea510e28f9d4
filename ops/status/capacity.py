"""Estimates of the memory for more people and the time for a backlog, from what Redis holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Final

from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.status.standing import Standing
from segrelay.producer.sync.store import count_members
from segrelay.worker.contract.keys import DIGEST_BYTES
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_keys
from segrelay.worker.contract.settings import Settings

PROFILES: Final = (10_000_000, 100_000_000)
BENCHMARK_PER_SECOND: Final = 7_800
"""Events delivered a second while more came in, all on 2 cores: tools/bench/results.md."""
BENCHMARK_USERS: Final = 1_000 / 4.7
"""Users in a request in the benchmark of `BENCHMARK_PER_SECOND`."""
TYPICAL: Final = {"ledger": 62.6, "member": 34.5, "delivery": 1_210.0}
"""Bytes of an object, assumed if Redis has none: tools/bench/results.md, docs/production.md."""
TABLE_BYTES: Final = 15.6
"""Bytes of a key in Redis' table of keys, which MEMORY USAGE leaves out. Measured
with 300,000 ledgers on Valkey 9. A table that has just doubled has up to twice of it."""
SAFETY: Final = 1.25
"""Factor from needed memory to `maxmemory`: producers stop at 80 % of it."""
_SAMPLED: Final = 1_000
_COUNTED: Final = 20_000
"""Up to this number of keys, ledgers are counted and not estimated."""
_MEMBER_SAMPLES: Final = 50
_LEDGER: Final = re.compile(rb"\{[^{}]+:\d+\}l.{%d}" % DIGEST_BYTES, re.DOTALL)


@dataclass(frozen=True, slots=True)
class RedisObjects:
    """Objects of one kind in Redis.

    Args:
        measured: False = the bytes are those of a benchmark.
    """

    count: int
    bytes_each: float
    counted: bool = True
    measured: bool = True

    @property
    def total(self) -> float:
        """Return the bytes that all of the objects take."""
        return self.count * self.bytes_each

    def document(self) -> dict[str, Any]:
        """Return number and size as `status --capacity --json` prints them."""
        return {
            "count": self.count,
            "bytes_each": round(self.bytes_each, 1),
            "counted": self.counted,
            "measured": self.measured,
        }


def read_capacity(client: Redis, standing: Standing) -> dict[str, Any]:
    """Return the document of `segrelay status --capacity`."""
    settings = standing.settings
    used: Any = client.info("memory")
    ledgers = _ledgers(client, settings)
    members = _members(client, settings)
    waiting = _waiting(client, settings, standing.counts.waiting)
    rest = max(0.0, used["used_memory"] - ledgers.total - members.total - waiting.total)
    a_profile = ledgers.bytes_each + (members.total / ledgers.count if ledgers.count else 0.0)
    if not ledgers.count and settings.sync:
        a_profile += members.bytes_each
    backlog = settings.redis.high_water * waiting.bytes_each
    return {
        "profiles": ledgers.document(),
        "sync_members": members.document(),
        "waiting": waiting.document(),
        "memory": {
            "used_bytes": used["used_memory"],
            "most_bytes": used["maxmemory"],
            "other_bytes": round(rest),
            "bytes_a_profile": round(a_profile, 1),
            "backlog_bytes": round(backlog),
            "needed": [
                {"profiles": count, "bytes": round(SAFETY * (count * a_profile + backlog + rest))}
                for count in PROFILES
            ],
        },
        "time": _time(standing),
    }


def _ledgers(client: Redis, settings: Settings) -> RedisObjects:
    """Return the ledgers: counted where there are few keys, else estimated from random ones."""
    keys = int(client.dbsize())
    if keys <= _COUNTED:
        partitions = all_partitions(client, settings)
        parts = scan_keys(client, partitions, "l*", "string")
        found, share = list({*chain.from_iterable(parts)}), 1.0
    else:
        drawn = ask_each(client, range(_SAMPLED), lambda pipe, _: pipe.randomkey())
        found, share = list(filter(None, drawn)), keys / _SAMPLED
    ledgers = [key for key in found if _LEDGER.fullmatch(key)]
    told = ask_each(client, ledgers[:_SAMPLED], lambda pipe, key: pipe.memory_usage(key))
    sizes = [size + TABLE_BYTES for size in told if size]
    count = round(len(ledgers) * share)
    if not sizes:
        return RedisObjects(count, TYPICAL["ledger"] + TABLE_BYTES, measured=False)
    return RedisObjects(count, sum(sizes) / len(sizes), counted=share == 1.0)


def _members(client: Redis, settings: Settings) -> RedisObjects:
    """Return the number and the size of the members that syncs know."""
    partitions = all_partitions(client, settings)
    count = sum(count_members(client, sync, partitions) for sync in settings.sync)
    names = [partition.members(sync) for partition in partitions for sync in settings.sync]
    sizes = ask_each(
        client, names, lambda pipe, name: pipe.memory_usage(name, samples=_MEMBER_SAMPLES)
    )
    size = sum(one or 0 for one in sizes)
    if not count:
        return RedisObjects(0, TYPICAL["member"], measured=False)
    return RedisObjects(count, size / count)


def _waiting(client: Redis, settings: Settings, count: int) -> RedisObjects:
    """Return the number and the size of waiting deliveries."""
    partitions = all_partitions(client, settings)
    streams = ask_each(client, partitions, lambda pipe, partition: pipe.smembers(partition.streams))
    names = [
        partition.stream(name.decode())
        for partition, found in zip(partitions, streams, strict=True)
        for name in found
    ]
    found = _sized(client, names, "xlen", TYPICAL["delivery"])
    return RedisObjects(count, found.bytes_each, measured=found.measured)


def _sized(client: Redis, names: Sequence[str], length: str, typical: float) -> RedisObjects:
    told = ask_each(
        client,
        names,
        lambda pipe, name: getattr(pipe, length)(name),
        lambda pipe, name: pipe.memory_usage(name, samples=_MEMBER_SAMPLES),
    )
    count = sum(told[::2])
    size = sum(one or 0 for one in told[1::2])
    return RedisObjects(count, size / count) if count else RedisObjects(0, typical, measured=False)


def _time(standing: Standing) -> dict[str, Any]:
    """Return the pace of deliveries, its limit, and the time that the backlog takes."""
    measured = _settled_per_second(standing.samples)
    per_second = measured or float(BENCHMARK_PER_SECOND)
    requests = standing.counts.requests
    users = standing.counts.delivered / requests if requests else BENCHMARK_USERS
    limits = {
        name: one.rate * one.factor / 60 * users
        for name, one in standing.destinations.items()
        if one.rate
    }
    limit = min(limits.values(), default=per_second)
    goes = min(per_second, limit)
    return {
        "per_second": round(per_second, 1),
        "per_second_measured": measured is not None,
        "users_a_request": round(users, 1),
        "users_a_request_measured": requests > 0,
        "rate_limit_per_second": {name: round(each, 1) for name, each in limits.items()},
        "limited_by": "rate limit" if limit < per_second else "workers",
        "backlog_seconds": round(standing.counts.waiting / goes, 1) if goes else None,
    }


def _settled_per_second(samples: Sequence[Sample]) -> float | None:
    """Return the pace of the last quarter of an hour while something waited; None = nothing did."""
    seconds, settled = 0.0, 0
    for newer, older in pairwise(samples):
        waited = min(_sum(newer, "waits"), _sum(older, "waits"))
        grown = _sum(newer, "settled") - _sum(older, "settled")
        if waited and grown > 0:
            seconds += (newer.at_ms - older.at_ms) / 1_000
            settled += grown
    return settled / seconds if seconds else None


def _sum(sample: Sample, name: str) -> int:
    """Sum a count over all destinations; `waits` is summed over live work and jobs."""
    return sum(
        count
        for counts in sample.counts.values()
        for key, count in counts.items()
        if key == name or (name == "waits" and key.startswith("waits|"))
    )


def capacity_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that `status --capacity` prints."""
    for name, title in (
        ("profiles", "profiles with a ledger"),
        ("sync_members", "members that syncs know"),
        ("waiting", "waiting deliveries"),
    ):
        one = found[name]
        about = "" if one["counted"] else "about "
        how = "measured here" if one["measured"] else "of a benchmark"
        yield f"{title}: {about}{one['count']:,}, {one['bytes_each']:,.0f} bytes each ({how})"
    yield from _memory_lines(found["memory"])
    yield from _time_lines(found["time"])


def _memory_lines(memory: Mapping[str, Any]) -> Iterator[str]:
    most = f" of {_size(memory['most_bytes'])}" if memory["most_bytes"] else ", without maxmemory"
    yield f"memory of Redis: {_size(memory['used_bytes'])}{most}"
    for one in memory["needed"]:
        yield (
            f"maxmemory for {one['profiles']:,} profiles: {_size(one['bytes'])} (estimated:"
            f" {memory['bytes_a_profile']:,.0f} bytes a profile, {_size(memory['backlog_bytes'])}"
            f" for redis.high_water, {_size(memory['other_bytes'])} for everything else, and a"
            " fifth free)"
        )


def _time_lines(time: Mapping[str, Any]) -> Iterator[str]:
    how = "measured here lately" if time["per_second_measured"] else "of a benchmark on 2 cores"
    yield f"deliveries a second: {time['per_second']:,.0f} ({how})"
    how = "measured here" if time["users_a_request_measured"] else "of a benchmark"
    for name, each in time["rate_limit_per_second"].items():
        yield (
            f"rate limit of {name}: {each:,.0f} deliveries a second with"
            f" {time['users_a_request']:,.0f} users a request ({how})"
        )
    seconds = time["backlog_seconds"]
    over = "never at this rate" if seconds is None else f"in {seconds:,.0f} s"
    yield f"the backlog is over {over}; the limit is the {time['limited_by']}"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"  # noqa: PLR2004
