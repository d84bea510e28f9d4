"""Stable ids, in Valkey and in a Cluster: whose an event is."""

import pytest

from segrelay.ops.state.identity_changes import IdentityChanges
from segrelay.worker.adapters.redis.recognizer import RedisRecognizer
from segrelay.worker.contract.keys import PartitionKeys, digest_of, stable_partition
from segrelay.worker.contract.people import (
    MOST_CHANGES,
    WAITS,
    Sighting,
    StableRecord,
    stable_digest,
)
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import RedisSettings

COUNT = 4
RETENTION_SECONDS = 1_000.0
ANN = stable_digest("_uid", "ann")
PEOPLE = [stable_digest("_uid", name) for name in ("ann", "bob")]
KEYS = [f"email:{name}@example.com" for name in ("a", "b", "c")]
PARTITION = PartitionKeys("insider", 0)


def seen(key, time_us, *, stable=ANN, lasts=True, forward="", by_person=False):
    return Sighting(stable, digest_of(key), key, time_us, lasts, forward, by_person)


class InRedis:
    def __init__(self, runner, client, url):
        self._runner = runner
        self._client = client
        runner.run(client.flushdb())
        self._recognizer = RedisRecognizer(
            client,
            PARTITION,
            field="_uid",
            identity="email",
            partitions=COUNT,
            retention_seconds=RETENTION_SECONDS,
        )
        self.sync = connect(url)
        self._changes = IdentityChanges(self.sync, RedisSettings(partitions=COUNT), "insider")

    def see(self, *sightings):
        return self._runner.run(self._recognizer.see(sightings, ["vip-enter"] * len(sightings)))

    def change_of(self, stable):
        return self._changes.change_of(stable)

    def end(self, stable, change, ending):
        return self._changes.end(stable, change, ending, round(1_000 * RETENTION_SECONDS))

    def _record(self, stable):
        partition = PartitionKeys("insider", stable_partition(stable, COUNT))
        return StableRecord.loads(self.sync.get(partition.stable(stable)))

    def lives_ms(self, stable):
        partition = PartitionKeys("insider", stable_partition(stable, COUNT))
        return self.sync.pttl(partition.stable(stable))

    def claims(self, key):
        return self._changes.claims(key)

    def key_of(self, stable):
        return self._record(stable).key

    @property
    def counts(self):
        partitions = [PartitionKeys("insider", number) for number in range(COUNT)]
        rows = [
            self.sync.hmget(partition.changed, "renamed", "refused") for partition in partitions
        ]
        return tuple(sum(int(row[at] or 0) for row in rows) for at in (0, 1))


@pytest.fixture
def in_redis(runner, redis_client, valkey):
    one = InRedis(runner, redis_client, valkey.url)
    yield one
    one.sync.close()


@pytest.fixture(params=["redis", pytest.param("cluster", marks=pytest.mark.nightly)])
def known(request, runner):
    redis = request.param == "redis"
    url = request.getfixturevalue("valkey" if redis else "local_cluster").url
    client = request.getfixturevalue("redis_client" if redis else "cluster_client")
    one = InRedis(runner, client, url)
    yield one
    one.sync.close()


A, B, C = KEYS


def test_an_identity_that_stays_changes_nothing(known):
    assert known.see(seen(A, 10), seen(A, 20)) == ["", ""]
    assert known.change_of(ANN) is None


def test_a_newer_event_with_another_identity_waits_for_a_change(known):
    known.see(seen(A, 10))

    assert known.see(seen(B, 20)) == [WAITS]
    change = known.change_of(ANN)
    assert (change.old, change.new, change.trigger) == (A, B, "vip-enter")
    assert known.see(seen(A, 30), seen(C, 40)) == [WAITS, WAITS]
    assert known.change_of(ANN) == change


def test_what_was_renamed_goes_on_and_what_is_late_belongs_to_the_new_identity(known):
    known.see(seen(A, 10))
    known.see(seen(B, 20))
    assert known.end(ANN, known.change_of(ANN), "renamed")

    assert known.see(seen(B, 20)) == [""]
    assert known.see(seen(A, 15, forward=B)) == [B]
    assert known.see(seen(A, 20, forward=B)) == [B]
    assert known.counts == (1, 0)


def test_a_newer_event_with_the_former_identity_changes_back(known):
    known.see(seen(A, 10))
    known.see(seen(B, 20))
    known.end(ANN, known.change_of(ANN), "renamed")

    assert known.see(seen(A, 21, forward=B)) == [WAITS]
    assert (known.change_of(ANN).old, known.change_of(ANN).new) == (B, A)


def test_an_older_event_with_an_identity_never_seen_changes_that_one(known):
    known.see(seen(B, 20))

    assert known.see(seen(A, 10)) == [WAITS]
    assert (known.change_of(ANN).old, known.change_of(ANN).new) == (A, B)


def test_whoever_read_a_change_that_is_over_ends_no_other(known):
    known.see(seen(A, 10))
    known.see(seen(B, 20))
    first = known.change_of(ANN)
    known.end(ANN, first, "renamed")
    known.see(seen(A, 30))

    assert not known.end(ANN, first, "renamed")
    assert known.key_of(ANN) == B
    assert (known.change_of(ANN).old, known.change_of(ANN).new) == (B, A)
    assert known.counts == (1, 0)


def test_a_refused_identity_goes_on_as_another_person(known):
    known.see(seen(A, 10))
    known.see(seen(B, 20))
    known.end(ANN, known.change_of(ANN), "refused")

    assert known.see(seen(B, 30), seen(A, 25)) == ["", ""]
    assert known.key_of(ANN) == A
    assert known.counts == (0, 1)
    assert known.see(seen(C, 40)) == [WAITS]


def test_late_events_of_an_identity_that_somebody_else_has_go_to_the_present_one(known):
    known.see(seen(B, 20))
    known.see(seen(A, 10))
    known.end(ANN, known.change_of(ANN), "left")

    assert known.see(seen(A, 15)) == [B]
    assert known.counts == (0, 0)
    assert known.see(seen(A, 25)) == [WAITS]


def test_what_a_person_renamed_is_not_renamed_back(known):
    known.see(seen(A, 10))

    assert known.see(seen(A, 30, forward=B, by_person=True)) == [B]
    assert known.see(seen(A, 40, forward=B, by_person=True)) == [B]
    assert known.see(seen(B, 30)) == [""]


def test_a_stable_id_that_changes_too_often_is_not_followed_any_more(known):
    known.see(seen(A, 1))
    for time_us in range(2, MOST_CHANGES + 2):
        known.see(seen(KEYS[(time_us + 1) % 2], time_us))
        known.end(ANN, known.change_of(ANN), "renamed")

    assert known.see(seen(C, 100)) == [""]
    assert known.change_of(ANN) is None
    assert known.counts == (MOST_CHANGES, 1)


def test_whose_newest_event_is_no_entrance_is_forgotten_with_time(in_redis):
    in_redis.see(seen(A, 1))
    assert in_redis.lives_ms(ANN) == -1

    in_redis.see(seen(A, 2, lasts=False))

    assert 0 < in_redis.lives_ms(ANN) <= 1_000 * RETENTION_SECONDS


def test_an_identity_has_the_list_of_its_stable_ids(in_redis):
    partition = PARTITION
    assert partition.number == 0
    in_redis.see(seen(A, 1), *(seen(A, 1, stable=one) for one in PEOPLE))

    text = in_redis.sync.get(partition.claims(digest_of(A))).decode()

    assert text.split() == [one.hex() for one in PEOPLE]
