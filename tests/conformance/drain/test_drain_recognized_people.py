"""Events of people who are known by stable ids, in a world without a network."""

from typing import Any

import pytest

from segrelay.ops.state.identity_changes import IdentityChanges
from segrelay.worker.adapters.redis.recognizer import RedisRecognizer
from segrelay.worker.batch.renames import HELD_MS
from segrelay.worker.contract.keys import digest_of, partition_of
from segrelay.worker.contract.people import Forward, Moving, stable_digest
from segrelay.worker.contract.settings.sections import RedisSettings
from tests.conformance.drain.world import RETENTION_SECONDS, event, members

PARTITIONS = 16
ADA, LOVELACE = "email:ada@example.com", "email:lovelace@example.com"


class CountingRecognizer(RedisRecognizer):
    asked = 0

    async def see(self, *seen: Any) -> list[str]:
        self.asked += 1
        return await super().see(*seen)


@pytest.fixture
def world(make_world) -> Any:
    world = make_world()
    world.recognizer = CountingRecognizer(
        world.redis,
        world.store.keys,
        field="_uid",
        identity="email",
        partitions=PARTITIONS,
        retention_seconds=RETENTION_SECONDS,
    )
    return world


def changes(world) -> IdentityChanges:
    redis = RedisSettings(partitions=PARTITIONS)
    return IdentityChanges(world.store.client, redis, world.store.keys.destination)


def records(world) -> list[Any]:
    """Return the keys of what is known of stable ids."""
    pattern = f"{{{world.store.keys.destination}:*}}u*"
    return world.store.client.keys(pattern)


def test_somebody_who_comes_with_another_identity_waits_and_others_go(world) -> None:
    world.put(event("ada", at=1, _uid="u1"))
    world.drain()
    world.put(event("lovelace", at=2, _uid="u1"), event("bob", at=2, _uid="u2"))

    world.drain()

    assert members(world) == {"ada@example.com", "bob@example.com"}
    assert world.store.waiting() == 1
    (change,) = changes(world).waiting(9).values()
    assert (change.old, change.new) == (ADA, LOVELACE)


def test_what_waited_goes_on_once_the_person_is_renamed(world) -> None:
    world.put(event("ada", at=1, _uid="u1"))
    world.drain()
    world.put(event("lovelace", at=2, _uid="u1"))
    world.drain()
    ((stable, change),) = changes(world).waiting(9).items()
    changes(world).end(stable, change, "renamed", 10**9)

    world.pass_seconds(HELD_MS / 1000 + 0.1)
    world.drain()

    assert "lovelace@example.com" in members(world)
    assert world.store.waiting() == 0


def test_a_late_event_goes_to_the_present_identity(world) -> None:
    world.put(event("lovelace", at=2, _uid="u1"))
    world.drain()
    stable = stable_digest("_uid", "u1")
    forward = Forward(Moving.DONE, LOVELACE, 3, 1, stable.hex(), "enter")
    world.store.put_forward(digest_of(ADA), forward.dumps())
    world.put(event("ada", at=1, _uid="u1"))

    world.drain()

    (moved,) = world.store.elsewhere[partition_of(LOVELACE, PARTITIONS)]
    assert moved.header.digest == digest_of(LOVELACE)
    assert members(world) == {"lovelace@example.com"}


def test_an_address_that_another_stable_id_has_now_is_not_handed_on(world) -> None:
    forward = Forward(Moving.DONE, LOVELACE, 3, 1, stable_digest("_uid", "u1").hex(), "enter")
    world.store.put_forward(digest_of(ADA), forward.dumps())
    world.put(event("ada", at=5, _uid="u2"))

    world.drain()

    assert members(world) == {"ada@example.com"}
    assert world.store.elsewhere == {}


@pytest.mark.parametrize("uid", ["", " ", "0", "null", None, True, 1.5, ["u1"], "x" * 600])
def test_what_tells_nobody_apart_is_no_stable_id(world, uid) -> None:
    world.put(event("ada", at=1, _uid=uid), event("lovelace", at=2, _uid=uid))

    world.drain()

    assert members(world) == {"ada@example.com", "lovelace@example.com"}
    assert records(world) == []


def test_a_batch_asks_once_whatever_it_holds(world) -> None:
    world.put(*(event(f"p{number}", at=1, _uid=f"u{number}") for number in range(50)))

    world.drain()

    assert world.recognizer.asked == 1
    assert len(records(world)) == 50


def test_what_cannot_be_read_dies_as_ever(world) -> None:
    world.put(event("ada")._replace(profile=b"{no json"))

    world.drain()

    assert len(world.store.dead_letters) == 1
