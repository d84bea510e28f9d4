import pytest

from segrelay.worker.contract.redis.fitness import NotYet, Unfit, Usable, judge, why_outdated

GOOD = {
    "redis_version": "7.2.4",
    "valkey_version": "9.0.1",
    "loading": 0,
    "role": "master",
    "aof_enabled": 1,
    "maxmemory_policy": "noeviction",
    "cluster_enabled": 0,
}


def test_one_that_keeps_everything_is_usable_without_a_warning():
    assert judge(GOOD, "always") == Usable()


@pytest.mark.parametrize(
    ("change", "appendfsync", "warning"),
    [
        ({}, "everysec", "appendfsync is everysec"),
        ({}, None, "appendfsync can't be seen"),
        ({"aof_enabled": 0}, "always", "appendonly is off"),
        ({"maxmemory_policy": "allkeys-lru"}, "always", "maxmemory-policy is allkeys-lru"),
    ],
)
def test_one_that_can_lose_something_is_usable_with_a_warning(change, appendfsync, warning):
    verdict = judge(GOOD | change, appendfsync)

    assert isinstance(verdict, Usable)
    assert len(verdict.warnings) == 1
    assert warning in verdict.warnings[0]


def test_one_behind_sentinels_is_usable_and_it_is_said_what_a_failover_loses():
    verdict = judge(GOOD, "always", found_by="sentinel")

    assert isinstance(verdict, Usable)
    assert ["a failover loses" in warning for warning in verdict.warnings] == [True]


def test_a_master_of_a_cluster_is_usable_where_a_cluster_was_named():
    verdict = judge(GOOD | {"cluster_enabled": 1}, "always", found_by="cluster")

    assert isinstance(verdict, Usable)
    assert ["master of a Cluster" in warning for warning in verdict.warnings] == [True]


@pytest.mark.parametrize(
    ("there", "wanted", "warning"),
    [
        (2, 2, None),
        (1, 2, "1 of the 2 replicas that redis.replicas demands follow it: nothing is accepted"),
        (2, 1, "set redis.replicas to 2"),
        (2, 0, "set redis.replicas to the number of its replicas"),
    ],
)
def test_replicas_that_have_to_confirm_are_counted(there, wanted, warning):
    info = GOOD | {"connected_slaves": there}

    verdict = judge(info, "always", found_by="sentinel", replicas=wanted)

    assert isinstance(verdict, Usable)
    assert [warning in told for told in verdict.warnings] == ([True] if warning else [])


@pytest.mark.parametrize("change", [{"loading": 1}, {"role": "slave"}])
def test_one_that_loads_or_follows_is_waited_for(change):
    assert isinstance(judge(GOOD | change, "always"), NotYet)


@pytest.mark.parametrize("change", [{"valkey_version": "7.2.9"}, {"cluster_enabled": 1}])
def test_one_that_is_too_old_or_a_cluster_is_unfit(change):
    assert isinstance(judge(GOOD | change, "always"), Unfit)


@pytest.mark.parametrize(
    ("version", "is_valkey", "fits"),
    [
        ("7.2.0", False, True),
        ("8.0.1", False, True),
        ("10.0", False, True),
        ("7.0.15", False, False),
        ("8.0.0", True, True),
        ("7.2.9", True, False),
        ("unknown", False, False),
    ],
)
def test_redis_7_2_and_valkey_8_are_the_oldest(version, is_valkey, fits):
    assert (why_outdated(version, is_valkey=is_valkey) == "") is fits
