import re

import pytest

from segrelay.worker.contract.redis.connection import (
    weaknesses,
    why_not_yet,
    why_unfit,
)

GOOD = {
    "redis_version": "7.2.4",
    "valkey_version": "9.0.1",
    "loading": 0,
    "role": "master",
    "aof_enabled": 1,
    "maxmemory_policy": "noeviction",
    "cluster_enabled": 0,
}


def replicas(there, wanted):
    return {"connected_slaves": there}, {"found_by": "sentinel", "replicas": wanted}


@pytest.mark.parametrize(
    ("change", "how", "warnings"),
    [
        ({}, {}, []),
        ({}, {"appendfsync": "everysec"}, ["appendfsync is everysec"]),
        ({}, {"appendfsync": None}, ["appendfsync can't be seen"]),
        ({"aof_enabled": 0}, {}, ["appendonly is off"]),
        ({"maxmemory_policy": "allkeys-lru"}, {}, ["maxmemory-policy is allkeys-lru"]),
        ({}, {"found_by": "sentinel"}, ["a failover loses"]),
        ({"cluster_enabled": 1}, {"found_by": "cluster"}, ["master of a Cluster"]),
        (*replicas(2, wanted=2), []),
        (*replicas(1, wanted=2), ["1 of the 2 replicas that redis.replicas demands follow it:"]),
        (*replicas(2, wanted=1), ["set redis.replicas to 2"]),
        (*replicas(2, wanted=0), ["set redis.replicas to the number of its replicas"]),
    ],
)
def test_one_that_can_lose_something_is_usable_with_a_warning(change, how, warnings):
    found = weaknesses(GOOD | change, **{"appendfsync": "always"} | how)

    assert (why_unfit(GOOD | change, how.get("found_by", "")), why_not_yet(GOOD | change)) == (
        "",
        "",
    )
    assert len(found) == len(warnings)
    assert all(one in told for one, told in zip(warnings, found, strict=True))


@pytest.mark.parametrize(
    ("change", "unfit", "not_yet"),
    [
        ({"loading": 1}, "", "loading its data"),
        ({"role": "slave"}, "", "read-only replica"),
        ({"valkey_version": "7.2.9"}, "at least Valkey 8.0", ""),
        ({"cluster_enabled": 1}, "redis[+]cluster://", ""),
    ],
)
def test_one_that_loads_or_follows_is_waited_for_and_an_old_one_or_a_cluster_unfit(
    change, unfit, not_yet
):
    found = why_unfit(GOOD | change, ""), why_not_yet(GOOD | change)

    assert [bool(one) for one in found] == [bool(unfit), bool(not_yet)]
    assert re.search(unfit or not_yet, "".join(found))


@pytest.mark.parametrize(
    ("version", "server", "fits"),
    [
        ("7.2.0", "redis", True),
        ("7.0.15", "redis", False),
        ("8.0.0", "valkey", True),
        ("7.2.9", "valkey", False),
        ("unknown", "redis", False),
    ],
)
def test_redis_7_2_and_valkey_8_are_the_oldest(version, server, fits):
    assert (why_unfit({f"{server}_version": version}, "") == "") is fits
