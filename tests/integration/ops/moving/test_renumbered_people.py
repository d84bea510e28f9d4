"""`segrelay redis partitions N`, and people who are renamed, erased, or known by stable ids."""

import asyncio

import orjson
import pytest

from segrelay.ops.moving.leases import HeldLease
from segrelay.ops.person.erasing import Erasing
from segrelay.ops.person.following import following_for
from segrelay.ops.state import opened
from segrelay.ops.state.identity_changes import IdentityChanges, read_renamed_people
from segrelay.ops.state.partitions import all_partitions
from segrelay.worker.adapters.redis.recognizer import RedisRecognizer
from segrelay.worker.batch.delivery import seal_dead_letter
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.partitions import RENUMBERED_LEASE, Numbering
from segrelay.worker.contract.people import Sighting, stable_digest
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, RedisSettings
from segrelay.worker.errors import PartitionsChange
from tests.integration.ops.moving.stock import change, drain
from tests.integration.ops.relay import EXIT, payload
from tests.interruptions import everything

pytestmark = pytest.mark.also_sealed

PEOPLE = 9
FORMER = Numbering((4,))


def of(number, audience="vip", minute=0, *, is_new=False, direction="enter"):
    address = f"{'new' if is_new else 'old'}{number}@example.com"
    return payload(address, audience, direction, minute, _uid=f"u{number}")


@pytest.fixture
def relay(relay):
    relay.configure(EXIT, stable="_uid")
    return relay


@pytest.fixture
def changing(relay):
    return people_who_change(relay)


def people_who_change(relay):
    """Everybody is known by a stable id; one was renamed, and the changes of others wait."""
    relay.publish(*(of(number) for number in range(PEOPLE)))
    relay.drain()
    relay.publish(of(0, "gold", 1, is_new=True))
    settle(relay)
    relay.publish(of(PEOPLE, minute=1, direction="exit"))
    relay.publish(*(of(number, "gold", 1, is_new=True) for number in range(1, 4)))
    drain(relay)
    assert told(relay).waiting == 3
    relay.close()
    return relay


def settle(relay):
    for _ in range(6):
        drain(relay)
        following_for(relay.client, relay.settings, "insider").step()
        for partition in all_partitions(relay.client, relay.settings):
            relay.client.delete(partition.holds)
    drain(relay)
    assert relay.status()["waiting"] == 0


def told(relay):
    partitions = all_partitions(relay.client, relay.settings)
    return read_renamed_people(relay.client, partitions, ["insider"])["insider"]


@pytest.mark.parametrize("counts", [(3,), (1,), (7, 2)])
def test_people_are_followed_as_before(changing, sandbox, counts):
    before = told(changing)

    for count in counts:
        change(changing.client, changing, count)

    assert told(changing) == before
    settle(changing)
    assert (told(changing).renamed, told(changing).refused) == (4, 0)
    changing.publish(*(of(number, "late", 0) for number in range(4)))
    changing.publish(*(of(number, "gold", 2, is_new=True) for number in range(4, PEOPLE)))
    settle(changing)
    assert (told(changing).renamed, told(changing).refused) == (PEOPLE, 0)
    found = sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
    for number in range(PEOPLE):
        wanted = ["gold", "late", "vip"] if number < 4 else ["gold", "vip"]
        assert found[f"new{number}@example.com"] == wanted
        assert f"old{number}@example.com" not in found


def test_each_stable_id_is_where_its_digest_says(changing):
    client = changing.client
    change(client, changing, 3)

    numbering = learn_numbering(client, changing.settings)
    changes = IdentityChanges(client, changing.settings.redis, "insider")
    for number in range(PEOPLE + 1):
        stable = stable_digest("_uid", f"u{number}")
        home = PartitionKeys("insider", numbering.of_stable(stable))
        assert client.get(home.stable(stable))
        assert (client.pttl(home.stable(stable)) > 0) == (number == PEOPLE)
        assert bool(changes.change_of(stable)) == (number in {1, 2, 3})
        address = "new" if number == 0 else "old"
        assert stable in changes.claims(f"email:{address}{number}@example.com")
    assert not [key for key in client.keys("{insider:[0-3]}*") if b"lease" not in key]


def put_dead_letters_on_their_way(client):
    """Leave what a renaming leaves that was killed while it moved letters."""
    digest = digest_of("email:moving@example.com")
    partition = PartitionKeys("insider", FORMER.of("email:moving@example.com"))
    dead_letter = {
        "id": f"insider.{partition.number}.a1",
        "header": [1, digest.hex()],
        "profile": {},
    }
    text = seal_dead_letter(dead_letter["id"], digest.hex(), orjson.dumps(dead_letter))
    client.hset(partition.dead_letters_leaving, dead_letter["id"], text)
    client.hset(PartitionKeys("insider", 2).carried(digest.hex()), "letter|insider.2.a1", "1")
    return digest, dead_letter


def test_letters_on_their_way_to_a_new_identity_are_still_found_there(changing):
    digest, dead_letter = put_dead_letters_on_their_way(changing.client)

    change(changing.client, changing, 3)

    numbering = learn_numbering(changing.client, changing.settings)
    left = PartitionKeys("insider", numbering.of_digest(digest))
    assert changing.client.hkeys(left.dead_letters_leaving) == [dead_letter["id"].encode()]
    for number in numbering.numbers:
        marks = PartitionKeys("insider", number).carried(digest.hex())
        assert changing.client.hgetall(marks) == {b"letter|insider.%d.a1" % number: b"1"}
        assert changing.client.pttl(marks) > 0


def test_who_still_knows_the_former_number_writes_nothing_there(changing):
    client = changing.client
    slept = RedisSettings()
    slept.learn(FORMER)
    former = IdentityChanges(client, slept, "insider")
    stable = stable_digest("_uid", "u1")
    known = former.change_of(stable)
    change(client, changing, 3)
    before = everything(client)

    with pytest.raises(PartitionsChange):
        former.end(stable, known, "renamed", 1_000)
    with pytest.raises(PartitionsChange):
        asyncio.run(see_in_former(changing.settings))

    assert everything(client) == before
    key = "email:old1@example.com"
    partition = PartitionKeys("insider", FORMER.of(key))
    client.set(partition.claims(digest_of(key)), stable.hex())
    with pytest.raises(PartitionsChange):
        former.forget(digest_of(key), partition.number, [key])


async def see_in_former(settings):
    client = connect_async(settings.redis.url)
    key = "email:late@example.com"
    recognizer = RedisRecognizer(
        client,
        PartitionKeys("insider", 1),
        field="_uid",
        identity="email",
        numbering=FORMER,
        retention_seconds=1_000.0,
    )
    sighting = Sighting(stable_digest("_uid", "late"), digest_of(key), key, 1, lasts=True)
    try:
        await recognizer.see([sighting], ["vip-enter"])
    finally:
        await client.aclose()


def test_no_step_renames_anybody_while_the_number_changes(changing):
    changing.client.set(keys.PARTITIONS, "4>3")

    with pytest.raises(PartitionsChange):
        following_for(changing.client, changing.settings, "insider").step()


def test_whoever_is_erased_meanwhile_is_erased_by_the_next_attempt(changing):
    client, settings = changing.client, changing.settings
    key = "email:old5@example.com"

    def change_now(_):
        change(client, changing, 3)

    with pytest.raises(PartitionsChange):
        Erasing(client, settings, key, change_now).run()
    erasing = Erasing(client, settings, key)
    erasing.run()

    stable, digest = stable_digest("_uid", "u5"), digest_of(key)
    left = [name for name in client.keys("*") if stable in name or digest in name]
    assert left == []


def test_a_renaming_that_slept_moves_nobody_in_former_partitions(changing):
    """The command stood still between its look and the write that ends the move of a person."""
    client = changing.client
    digest, partition = digest_of("email:old5@example.com").hex(), PartitionKeys("insider", 1)
    client.hset(partition.forwards, digest, "record")
    HeldLease(client, partition, "redis-partitions", token=RENUMBERED_LEASE).hold()
    others = (partition.ledger(b"x"), partition.intents, partition.reached, partition.who)
    calls = {
        "forward_left": ScriptCall(
            (partition.forwards, partition.lease, *others), (digest, "record", "done")
        ),
        "forward_arrived": ScriptCall(
            (partition.forwards, partition.lease), (digest, "record", "", "email:new5@example.com")
        ),
    }

    assert [opened.run(client, name, [call]) for name, call in calls.items()] == [[3], [3]]
    assert client.hgetall(partition.forwards) == {digest.encode(): b"record"}
