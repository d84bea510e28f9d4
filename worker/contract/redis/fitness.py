"""The decision whether a Redis can be used, from its answer to INFO and its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from segrelay.worker.contract.redis.url import FoundBy

LEAST_REDIS: Final = (7, 2)
LEAST_VALKEY: Final = (8, 0)

_SYNC_LOSS: Final = "a crash of its machine or process can lose events that were accepted"
_FAILOVER_LOSS: Final = (
    "{how}: a failover loses what was accepted and had not reached the"
    " replica yet; set redis.replicas to the number of its replicas"
)
_FAILS_OVER: Final[Mapping[str, str]] = {
    "sentinel": "it is found through Sentinels",
    "cluster": "it is a master of a Cluster",
}
_REPLICAS_MISSING: Final = (
    "{there} of the {wanted} replicas that redis.replicas demands follow it: nothing is accepted,"
    " sent or settled until they do"
)
_SOME_REPLICAS: Final = (
    "redis.replicas demands {wanted} of its {there} replicas: a failover to one that has not"
    " confirmed yet loses what the others have; set redis.replicas to {there}"
)


def why_unfit(info: Mapping[str, Any], found_by: FoundBy) -> str:
    """Return why a Redis can never be used, by its answer to INFO; "" if it can."""
    if info.get("cluster_enabled") == 1 and found_by != "cluster":
        return "it is a Redis Cluster; write redis+cluster:// in redis.url"
    return why_outdated(version_of(info), is_valkey="valkey_version" in info)


def why_not_yet(info: Mapping[str, Any]) -> str:
    """Return why a Redis can't be used now, by its answer to INFO; "" if it can."""
    if info.get("loading") == 1:
        return "it is loading its data"
    if info.get("role", "master") != "master":
        return "it is a read-only replica; redis.url has to name the master"
    return ""


def weaknesses(
    info: Mapping[str, Any],
    appendfsync: str | None,
    *,
    found_by: FoundBy = "",
    replicas: int = 0,
) -> list[str]:
    """Return where a Redis keeps less than we promise.

    Args:
        info: Its answer to INFO.
        appendfsync: As configured there; None where it does not let us see.
        found_by: Sentinels and a Cluster may put a replica in its place.
        replicas: The number of them that must confirm a write.
    """
    of_replicas = _about_replicas(int(info.get("connected_slaves", 0)), replicas, found_by)
    return [*_warnings(info, appendfsync), *of_replicas]


def _about_replicas(there: int, wanted: int, found_by: FoundBy) -> Iterator[str]:
    if there < wanted:
        yield _REPLICAS_MISSING.format(there=there, wanted=wanted)
    elif found_by and not wanted:
        yield _FAILOVER_LOSS.format(how=_FAILS_OVER[found_by])
    elif found_by and there > wanted:
        yield _SOME_REPLICAS.format(there=there, wanted=wanted)


def version_of(info: Mapping[str, Any]) -> str:
    """Return the version that counts: Valkey calls itself Redis 7.2.4 for old clients."""
    return str(info.get("valkey_version") or info.get("redis_version") or "0")


def why_outdated(version: str, *, is_valkey: bool) -> str:
    """Say why a version is too old; empty where it is not."""
    least = LEAST_VALKEY if is_valkey else LEAST_REDIS
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers >= least:
        return ""
    name = "Valkey" if is_valkey else "Redis"
    return f"it is {name} {version}; at least {name} {least[0]}.{least[1]} is needed"


def _warnings(info: Mapping[str, Any], appendfsync: str | None) -> Iterator[str]:
    if info.get("aof_enabled") == 0:
        yield f"appendonly is off: {_SYNC_LOSS}; set appendonly yes, appendfsync always"
    elif appendfsync is None:
        yield "appendfsync can't be seen (CONFIG is not allowed); it should be always"
    elif appendfsync != "always":
        yield f"appendfsync is {appendfsync}: {_SYNC_LOSS}; set appendfsync always"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield (
            f"maxmemory-policy is {policy}: when memory is short it throws events away;"
            " set maxmemory-policy noeviction"
        )
