"""The form in which members are kept: it holds any of them, and an earlier one is taken over."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.ops.state import opened
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.redis.accept import Entrant, accept_call
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.settings import RedisSettings
from segrelay.worker.contract.words import Direction
from tests.integration.producer.sync_world import deliver, emails, partition_of, person
from tests.members import as_an_earlier_version_has_them, marks_of, set_marks

PARTITION = PartitionKeys("insider", 0)
MANY = 3_000
NAMES = st.one_of(
    st.integers(0, 60).map(lambda n: f"email:p{n}@example.com"),
    st.sampled_from(
        ["email:", "id:7", "email:\0a", "\0email:a", "id:é\n", "id:" + "x" * 300, "id:" + "y" * 252]
    ),
)
MARKS = st.sampled_from([b"1 x", b"\x81\x05\x00\xff", b"0 1790000000123 -", b"\0", b"m" * 200, b""])
EARLIER_CLAIM = """
local epoch = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^step (%d+)$')
if epoch and tonumber(epoch) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'step ' .. ARGV[2])
return 1
"""
"""How a step of an earlier version claims the members of a partition."""


@pytest.fixture
def store(client):
    client.flushall()
    return SyncStore(client, "vip", RedisSettings(partitions=1))


@pytest.fixture
def earlier(world):
    """Let a sync know forty members, as an earlier version has them, whose entrances are done."""
    world.people(*(person(n, "vip") for n in range(40)))
    run = world.run()
    deliver(world, Direction.ENTER, range(40), run.at_us)
    world.clear()
    world.switch(date_offset_seconds=60.0)
    for partition in world.partitions():
        as_an_earlier_version_has_them(world.client, partition, "vip")
    return run


def test_any_changes_of_members_are_read_as_they_were_made(store, client):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.dictionaries(NAMES, MARKS, max_size=40), max_size=6))
    def holds(changes):
        client.flushall()
        known = {}
        for change in changes:
            set_marks(client, PARTITION, "vip", change)
            known = {key: mark for key, mark in (known | change).items() if mark}
        asked = [*known, "email:nobody@example.com"]

        assert dict(store.members(PARTITION)) == known
        assert store.marks("insider", asked) == known
        assert store.count("insider") == len(known)

    holds()


@pytest.mark.usefixtures("store")
def test_many_members_stand_in_texts_of_about_sixteen(client):
    everybody = {f"email:p{n}@example.com": b"\x81\x01\x00\x01" for n in range(MANY)}
    for key, mark in everybody.items():
        set_marks(client, PARTITION, "vip", {key: mark})

    texts = client.hlen(PARTITION.members("vip")) - 2
    size = client.memory_usage(PARTITION.members("vip"), samples=0)

    assert marks_of(client, PARTITION, "vip") == everybody
    assert MANY / texts < 20
    assert size / MANY < 34


def test_nobody_is_missed_who_moves_while_members_are_read(store, client):
    first = {f"email:p{n}@example.com": b"1 x" for n in range(MANY)}
    set_marks(client, PARTITION, "vip", first)
    reading, found = store.pages(PARTITION), Counter()

    for number, page in enumerate(reading):
        found.update(page.keys())
        if number < 3:
            more = {f"email:q{number}{n}@example.com": b"1 x" for n in range(2 * MANY)}
            set_marks(client, PARTITION, "vip", more)

    assert first.keys() <= found.keys()


@pytest.mark.usefixtures("store")
def test_the_last_member_leaves_nothing_behind(client):
    set_marks(client, PARTITION, "vip", {"email:a@example.com": b"1 x"})

    set_marks(client, PARTITION, "vip", {"email:a@example.com": b""})

    assert not client.exists(PARTITION.members("vip"))


@pytest.mark.usefixtures("earlier")
def test_members_of_an_earlier_version_are_taken_over_by_the_next_step(world):
    before = world.known()
    world.move(1, "exit")

    run = world.run()

    assert before == emails(range(40))
    assert (run.entered, run.left, run.last["outcome"]) == (0, 1, "done")
    assert world.deliveries() == [("exit", "p1@example.com")]
    assert world.known() == emails(range(40)) - {"p1@example.com"}
    assert not world.client.keys("*}sync:*")


@pytest.mark.usefixtures("earlier")
def test_nothing_is_compared_before_all_are_taken_over(world):
    syncing = world.syncing(sleep=lambda _: None)

    first = syncing.step(forced=True, is_over=lambda: True)

    assert (first.more, first.line) == (True, "taking over the members of an earlier version")
    assert syncing.store.peek().rows == 0
    assert (world.known(), syncing.store.count("insider")) == (emails(range(40)), 40)
    assert world.run().left == 0


@pytest.mark.usefixtures("earlier")
def test_a_step_of_an_earlier_version_is_refused_once_one_of_this_has_begun(world):
    client, (partition, *_) = world.client, world.partitions()
    claim = (EARLIER_CLAIM, 1, partition.synctokens, "vip")
    begun = client.eval(*claim, 1_000_000)

    world.run()
    token, again = client.hget(partition.synctokens, "vip"), client.eval(*claim, 1_000_001)

    assert (begun, again) == (1, 0)
    assert token != b"step 1000000"  # so what it still has to write is refused, too


@pytest.mark.usefixtures("earlier")
def test_who_enters_by_an_earlier_receiver_is_known(world):
    world.run()
    key, mark = "email:p100@example.com", b"0 1790000000123 -"
    world.client.hset(partition_of(world, key).former_members("vip"), key, mark)
    seen = "email:p1@example.com"
    world.client.hset(partition_of(world, seen).former_members("vip"), seen, mark)

    found = world.syncing().store.marks("insider", [key, seen])
    world.move(2, "exit")
    run = world.run()

    assert found[key] == mark
    assert found[seen] != mark
    assert (run.entered, run.left) == (0, 1)
    assert not world.client.keys("*}sync:*")


@pytest.mark.usefixtures("earlier")
def test_of_an_earlier_member_an_entrance_changes_nothing(world):
    key = "email:p1@example.com"
    partition = partition_of(world, key)
    mark = world.client.hget(partition.former_members("vip"), key)

    call = accept_call(partition, [], entrants=[Entrant("vip", key, 5)])
    run_each(world.client, load_script("accept"), [call])

    assert not world.client.hexists(partition.former_members("vip"), key)
    assert marks_of(world.client, partition, "vip") == {key: mark}


@pytest.mark.usefixtures("earlier")
def test_a_sync_of_an_earlier_version_is_forgotten_whole(world):
    store = world.syncing().store
    assert store.take()

    store.forget(["insider"])

    assert (world.known(), store.count("insider")) == (set(), 0)


@pytest.mark.usefixtures("earlier")
def test_an_earlier_member_is_erased_and_moves_as_any_other(world):
    client, erased, moves = world.client, "email:p1@example.com", "email:p2@example.com"
    mark = client.hget(partition_of(world, moves).former_members("vip"), moves)
    at = partition_of(world, erased)
    client.hset(at.lease, "token", "mine")
    names = (at.lease, at.ledger(digest_of(erased)), at.reached, at.who, *keys_of(at))
    forget = ScriptCall(names, ("mine", digest_of(erased).hex(), erased))
    to = partition_of(world, moves)
    forward = ScriptCall(
        (to.forwards, to.lease, *keys_of(to)),
        (digest_of(moves).hex(), "", "record", moves, "", "vip"),
    )

    (gone,) = opened.run(client, "forget", [forget])
    moved = opened.run(client, "forward", [forward])

    assert (gone[2], moved) == (1, [1])
    assert client.hget(to.forwards, f"{digest_of(moves).hex()}|vip") == mark
    assert world.known() == emails(range(40)) - {"p1@example.com", "p2@example.com"}


def keys_of(partition):
    return partition.members("vip"), partition.former_members("vip")
