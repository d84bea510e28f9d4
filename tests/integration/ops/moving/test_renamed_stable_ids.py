"""`segrelay rename destination`, and people who are known by stable ids."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.moving.leases import await_holders
from segrelay.ops.moving.renaming import Renaming
from segrelay.ops.person.following import following_for
from segrelay.ops.state.identity_changes import IdentityChanges, read_renamed_people
from segrelay.ops.state.partitions import all_partitions
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.people import Forward, Moving, stable_digest
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.errors import OperationsMustAct, PartitionsChange
from tests.integration.ops.moving.dying_redis import deaths, everything, stalls
from tests.integration.ops.moving.stock import drain
from tests.integration.ops.moving.test_renaming import leave_held, rename, run
from tests.integration.ops.moving.test_renumbered_people import of
from tests.integration.ops.relay import EXIT
from tests.nightly import amount

PEOPLE = 9
CHANGING = range(1, 4)
EVERY_TRIP = amount(17, nightly=1)
TIMES = amount(3, nightly=60)
OLD, NEW = "insider", "insider-eu"


@pytest.fixture
def changing(relay):
    """Everybody is known by a stable id; one was renamed, changes of others wait; then the name."""
    relay.configure(EXIT, stable="_uid")
    relay.publish(*(of(number) for number in range(PEOPLE)))
    settle(relay, OLD)
    relay.publish(of(0, "gold", 1, is_new=True))
    settle(relay, OLD)
    relay.publish(of(PEOPLE, minute=1, direction="exit"))
    relay.publish(*(of(number, "gold", 1, is_new=True) for number in CHANGING))
    drain(relay, OLD)
    assert told(relay, OLD).waiting == len(CHANGING)
    rename(relay)
    return relay


def settle(relay, name=NEW):
    """Drain and rename people until nothing waits."""
    for _ in range(6):
        drain(relay, name)
        following_for(relay.client, relay.settings, name).step()
        for place in all_partitions(relay.client, relay.settings):
            relay.client.delete(place.holds)
        if relay.status()["waiting"] == told(relay, name).waiting == 0:
            return
    raise AssertionError(relay.status())


def told(relay, name=NEW):
    places = all_partitions(relay.client, relay.settings)
    return read_renamed_people(relay.client, places, [name])[name]


def carry(client, relay):
    return Renaming(client, relay.settings, OLD, NEW).run()


def home(relay, number, name=NEW):
    stable = stable_digest("_uid", f"u{number}")
    numbering = learn_numbering(relay.client, relay.settings)
    return PartitionKeys(name, numbering.of_stable(stable)), stable


def memberships(sandbox):
    return sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)


def test_people_are_followed_under_the_new_name(changing, call, sandbox):
    before = told(changing, OLD)

    run(call)

    assert told(changing) == before
    settle(changing)
    changing.publish(*(of(number, "late", 0) for number in range(4)))
    changing.publish(*(of(number, "gold", 2, is_new=True) for number in range(4, PEOPLE)))
    settle(changing)
    assert (told(changing).renamed, told(changing).refused) == (PEOPLE, 0)
    found = memberships(sandbox)
    for number in range(PEOPLE):
        wanted = ["gold", "late", "vip"] if number < 4 else ["gold", "vip"]
        assert found[f"new{number}@example.com"] == wanted
        assert f"old{number}@example.com" not in found


def test_each_stable_id_lasts_as_long_as_before(changing):
    client = changing.client
    carry(client, changing)

    changes = IdentityChanges(client, NEW, learn_numbering(client, changing.settings))
    for number in range(PEOPLE + 1):
        place, stable = home(changing, number)
        assert client.get(place.stable(stable))
        assert (client.pttl(place.stable(stable)) > 0) == (number == PEOPLE)
        assert bool(changes.change_of(stable)) == (number in CHANGING)
        address = "new" if number == 0 else "old"
        assert stable in changes.claims(f"email:{address}{number}@example.com")
    left = [key for key in client.keys("{insider:*}[iu]*") if key[-11:-10] in b"iu"]
    assert left == []
    assert not client.exists(keys.changes(OLD))
    assert not any(client.exists(f"{{insider:{n}}}changes") for n in range(4))


def test_a_rename_that_is_killed_anywhere_keeps_what_is_known_of_people(changing, redis_url):
    client = changing.client

    for number, wanted in deaths(
        client, redis_url, lambda dying: carry(dying, changing), every=EVERY_TRIP
    ):
        leave_held(changing)
        carry(client, changing)

        assert everything(client) == wanted, number


def test_workers_that_go_on_while_a_rename_stands_still_rename_nobody_wrongly(changing, redis_url):
    client = changing.client

    def leases_lapse_and_workers_go_on():
        leave_held(changing)
        drain(changing, NEW)
        following_for(client, changing.settings, NEW).step()

    for number in stalls(
        client,
        redis_url,
        lambda stalled: carry(stalled, changing),
        leases_lapse_and_workers_go_on,
        first=5,
        times=TIMES,
    ):
        leave_held(changing)
        carry(client, changing)
        settle(changing)

        assert told(changing).waiting == 0, number
        for each in CHANGING:
            place, stable = home(changing, each)
            assert client.get(place.stable(stable)).endswith(b"email:new%d@example.com" % each)


def test_who_came_with_another_identity_under_the_new_name_first_is_renamed(
    changing, call, sandbox
):
    changing.publish(of(7, "gold", 5, is_new=True), of(8, "gold", -5))
    drain(changing, NEW)

    run(call)
    settle(changing)

    place, stable = home(changing, 7)
    assert changing.client.get(place.stable(stable)).endswith(b" email:new7@example.com")
    found = told(changing)
    assert (found.renamed, found.refused, found.waiting) == (4, 1, 0)  # Insider knows both
    changing.publish(of(8, "silver", 6, is_new=True))
    settle(changing)
    assert memberships(sandbox)["new8@example.com"] == ["gold", "silver", "vip"]


def test_a_change_that_waits_under_the_new_name_comes_first(changing, call, sandbox):
    changing.publish(of(7, "gold", 5), of(1, "silver", 5))
    drain(changing, NEW)
    changing.publish(of(7, "silver", 6, is_new=True))
    drain(changing, NEW)
    assert told(changing).waiting == 1

    with pytest.raises(OperationsMustAct, match="1 people are being renamed under insider-eu"):
        run(call)
    settle(changing)

    assert run(call)["profiles"] == 0
    settle(changing)
    found = told(changing)
    assert (found.refused, found.waiting) == (0, 0)
    for number in (7, *CHANGING):
        assert "gold" in memberships(sandbox)[f"new{number}@example.com"]


def test_who_still_knows_the_old_name_changes_nothing_there(changing, call):
    client = changing.client
    former = IdentityChanges(client, OLD, learn_numbering(client, changing.settings))
    _, stable = home(changing, 1)
    known = former.change_of(stable)
    run(call)
    before = everything(client)

    with pytest.raises(PartitionsChange):
        former.end(stable, known, "renamed", 1_000)

    assert everything(client) == before


def test_somebody_whose_renaming_was_stopped_under_the_old_name_is_renamed_under_the_new(
    changing, call, sandbox
):
    """Their record says that Insider was asked; the change that does the rest comes along."""
    old, new = "email:old1@example.com", "email:new1@example.com"
    numbering = learn_numbering(changing.client, changing.settings)
    place = PartitionKeys(OLD, numbering.of(old))
    _, stable = home(changing, 1)
    asked = Forward(Moving.ASKED, new, numbering.of(new), 1, stable.hex(), "vip-enter")
    changing.client.hset(place.forwards, digest_of(old).hex(), asked.dumps())

    run(call)
    settle(changing)

    assert memberships(sandbox)["new1@example.com"] == ["gold", "vip"]
    moved = PartitionKeys(NEW, numbering.of(old))
    record = orjson.loads(changing.client.hget(moved.forwards, digest_of(old).hex()))
    assert record["moving"] == "done"


def test_people_are_renamed_and_erased_after_their_destination_was(changing, call, sandbox):
    run(call)
    settle(changing)

    renamed = call(app, "rename", "person", "old8@example.com", "new8@example.com")
    erased = call(app, "erase", "old7@example.com", "--yes", "--json")

    assert renamed.exit_code == 0
    assert memberships(sandbox)["new8@example.com"] == ["vip"]
    await_holders(changing.client, all_partitions(changing.client, changing.settings))
    assert orjson.loads(erased.stdout)["erased"]["ledgers"] == 1
    assert orjson.loads(erased.stdout)["erased"]["stable ids"] == 1


def test_nobody_is_renamed_whose_ledger_is_still_under_the_old_name(changing, call):
    run(call)
    settle(changing)
    key = "email:old8@example.com"
    place = PartitionKeys(OLD, learn_numbering(changing.client, changing.settings).of(key))
    changing.client.set(place.ledger(digest_of(key)), b"what a command that was killed has left")

    refused = call(app, "rename", "person", "old8@example.com", "new8@example.com")

    assert refused.exit_code == 1
    assert "give `segrelay rename destination insider insider-eu` again" in refused.output
