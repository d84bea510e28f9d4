"""One drain after the other, and what becomes of events, in a world without a network."""

from dataclasses import replace
from typing import Any

from segrelay.worker.contract.keys import NAMES, digest_of
from segrelay.worker.contract.ledger import AUDIENCE_NAME, Item, Record, pack, unpack
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import POISON, Sending, failed, holds_poison, taken
from tests.conformance.drain.world import LATE_SECONDS, event, members


def test_events_are_delivered_many_in_one_request(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(300)))

    tally, wake = world.drain()

    assert (tally.delivered, tally.requests, wake) == (300, 1, "")
    assert world.store.waiting() == 0
    assert len(members(world)) == 300


def test_up_to_four_requests_are_under_way_at_once(make_world) -> None:
    under_way: list[int] = []

    def responds(sending: Sending) -> Any:
        under_way.append(sum(not s.box for s in sending.process.world.sendings))
        return taken(sending)

    world = make_world(responds, api=replace(InsiderApi(), max_users=20))
    world.put(*(event(f"p{n}") for n in range(200)))
    world.drain_until_nothing_is_left()

    assert max(under_way) == 4
    assert len(members(world)) == 200


def test_two_profiles_that_are_one_person_there_are_counted_and_never_sent_at_once(
    make_world,
) -> None:
    world = make_world()
    first, second = event("ann"), event("bea")
    # Another key to us, the same email to the destination.
    world.put(first, second._replace(profile=first.profile))

    world.drain()

    assert [len(sending.users) for sending in world.sendings] == [1, 1]
    assert world.store.counts["shared_identity|enter"] == 1


def test_what_waits_for_an_intent_in_doubt_is_passed_over_and_held(make_world) -> None:
    world = make_world(lambda s: failed(502) if s.at < 1_001 and holds_poison(s) else taken(s))
    world.put(event("poison", at=1))
    world.drain()
    world.put(*(event("poison", f"a{n}", at=2) for n in range(3)), event("ada"))
    world.pass_seconds(2)

    world.drain()
    world.drain()

    assert members(world) == {POISON, "ada@example.com"}
    assert world.store.waiting() == 3
    assert not world.due()
    world.pass_seconds(LATE_SECONDS)
    world.drain()
    assert world.store.waiting() == 0


def test_within_a_batch_only_the_newest_is_sent(make_world) -> None:
    world = make_world()
    world.put(
        event("ada", at=1), event("ada", trigger="exit", at=2), event("ada", at=3), event("bob")
    )

    tally, _ = world.drain()

    assert (tally.delivered, tally.skipped) == (2, 2)
    assert members(world) == {"ada@example.com", "bob@example.com"}
    assert all(s.url.endswith("upsert") for s in world.sendings)


def test_an_asserted_event_is_skipped_and_its_neighbours_go(make_world) -> None:
    world = make_world()
    world.put(event("ada", behave="assert"), event("bob"))

    tally, _ = world.drain()

    assert (tally.delivered, tally.skipped, tally.dead) == (1, 1, 0)
    assert world.store.counts["skipped|enter|asserted"] == 1


def test_a_state_event_is_sent_where_a_whole_list_was_told_since(make_world) -> None:
    world = make_world()
    world.put(event("ada", "vip", "exit", at=3))
    world.drain()
    world.put(event("ada", "new", "overwrite", at=4, segments=["new", "vip"]))
    world.drain()
    assert "vip" in world.insider.lists["ada@example.com"]
    world.put(event("ada", "vip", "exit", at=5, state=True))

    world.drain()

    assert world.insider.lists["ada@example.com"] == {"new"}


def test_a_state_event_that_tells_what_is_known_is_not_sent(make_world) -> None:
    world = make_world()
    world.put(event("ada", at=3))
    world.drain()
    world.put(event("ada", at=5, state=True), event("ada", at=6, state=True))

    tally, _ = world.drain()

    assert (tally.skipped, tally.requests) == (2, 0)
    assert world.store.counts["skipped|enter|already_there"] >= 1


def test_a_profiles_state_events_over_two_triggers_stand_in_its_ledger_together(make_world) -> None:
    world = make_world()
    slugs = ("far", "new", "vip")
    told = [("far", "enter"), ("new", "overwrite"), ("vip", "enter")]
    world.put(*(event("ada", slug, trigger, segments=slugs) for slug, trigger in told))
    world.drain()
    world.drain()
    again = [event("ada", slug, trigger, at=9, state=True) for slug, trigger in told]
    world.put(*again)
    world.drain()
    # Each is older than what the state events tell: none of them may be delivered.
    world.put(*(event("ada", slug, "exit", at=5) for slug in slugs))

    tally, _ = world.drain()

    assert (tally.skipped, tally.requests) == (3, 0)
    assert world.insider.lists["ada@example.com"] == set(slugs)


def _record(world: Any, person: str) -> Record:
    return unpack(world.store.ledger(digest_of(f"email:{person}@example.com")))


def test_an_audience_whose_number_was_lost_stops_nobody(make_world) -> None:
    world = make_world()
    world.put(event("ada", trigger="overwrite", segments=["vip"]))
    world.drain()
    digest = digest_of("email:ada@example.com")
    record = _record(world, "ada")
    newer = record.items[1, 2].delivered_us + 10**9
    lost = {(7_777, 2): Item(Direction.EXIT, newer), (8_888, 2): Item(Direction.ENTER, newer)}
    text = pack(record._replace(items={**record.items, **lost}))
    world.store.put_ledger(digest, text)
    world.put(event("ada", "new", "overwrite", at=3, segments=["new", "vip"]), event("bob"))

    tally, _ = world.drain()

    assert tally.delivered == 2
    assert world.insider.lists["ada@example.com"] == {"new", "vip"}


def test_a_number_that_redis_has_lost_is_not_used_any_more(make_world) -> None:
    world = make_world()
    client, vip = world.store.client, AUDIENCE_NAME + "vip"
    world.put(event("ada"))
    world.drain()
    lost = client.hget(NAMES, vip)
    client.hdel(NAMES, vip)
    world.put(event("bob"))

    world.drain()

    assert client.hget(NAMES, vip) != lost
    assert int(lost) not in {audience for audience, _ in _record(world, "bob").items}
