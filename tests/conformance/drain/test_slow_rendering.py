"""What takes long to render is sent all the same, and live work does not wait for a backfill."""

from dataclasses import replace

from segrelay.worker.batch.render import RENDER_GROUP
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.clocked_redis import at_once
from tests.conformance.drain.fake_insider import Reply, Sending, failed, taken
from tests.conformance.drain.world import World, event, members


def call_live_soon(world: World) -> None:
    """Let a live event of ada come 10 ms after the drain has begun, with a call for it."""

    def call() -> None:
        world.put_now(event("ada"))
        world.live_calls += 1

    world.loop.call_later(0.01, call)


def test_a_backfill_is_rendered_no_further_when_live_work_comes(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.15, lambda: world.put(event("ada")))

    tally, _ = world.drain()

    first, live, *_ = world.sendings
    assert 1 < len(first.positions) <= 700
    assert [position.partition("|")[0] for position in live.positions] == ["live"]
    assert tally.delivered == 1_501, "then the backfill goes on"
    assert (world.rendered + world.rendered_ahead).total() == 1_501, "nothing is rendered twice"


def test_live_work_here_is_delivered_before_a_drain_ends_for_live_work_elsewhere(
    make_world,
) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.live_waits_elsewhere = True
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.05, lambda: world.put_now(event("ada")))

    tally, _ = world.drain()

    assert "ada@example.com" in members(world)
    assert tally.requests == 2


def test_a_backfill_comes_on_though_live_work_comes_whenever_it_was_read(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", lane="backfill") for n in range(300)))

    class Read(set):
        def update(self, names) -> None:
            if any(name.startswith("backfill|") for name in names):
                world.put_now(event(f"live{world.live_calls}"))
                world.live_calls += 1

    world.streams_read = Read()

    for _ in range(20):
        world.drain()

    assert world.store.waiting() == 0


def test_live_work_that_came_while_a_backfill_was_read_waits_for_one_part_of_it(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.01
    world.put(*(event(f"p{n}", lane="backfill") for n in range(900)))

    class Read(set):
        def update(self, names) -> None:
            if any(name.startswith("backfill|") for name in names) and not came:
                came.append("ada")
                world.put_now(event("ada"))

    came: list[str] = []
    world.streams_read = Read()

    world.drain()

    first, live, *_ = world.sendings
    assert len(first.positions) == RENDER_GROUP
    assert [position.partition("|")[0] for position in live.positions] == ["live"]


def test_live_work_is_rendered_to_its_end(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}") for n in range(1_500)))
    world.loop.call_later(0.15, lambda: world.put(event("ada")))

    world.drain()

    assert world.rendered["enter"] >= 1_500


def test_where_people_go_alone_little_is_rendered_before_the_first_is_sent(make_world) -> None:
    world = make_world(api=replace(InsiderApi(), max_users=1))
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}") for n in range(300)))
    begun = world.loop.time()

    world.drain()

    assert world.sendings[0].at - begun < 2 * world.render_seconds


def test_nothing_more_of_a_backfill_is_prepared_while_live_work_has_its_turn_next(
    make_world,
) -> None:
    ahead: dict[str, int] = {}

    def answers_late(sending: Sending) -> Reply:
        for position in sending.positions:
            ahead.setdefault(position.partition("|")[0], world.rendered_ahead.total())
        reply = taken(sending)
        reply.answer_seconds = 0.1
        return reply

    world = make_world(answers_late)
    world.render_seconds = 0.03
    world.limits = replace(world.limits, batch_entries=300, slice_seconds=60.0)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(900)))

    call_live_soon(world)

    world.drain()

    assert ahead == {"live": 0, "backfill": 0}
    assert world.rendered_ahead.total() > 1, "afterwards the backfill's next batches are prepared"


def test_while_all_of_a_backfills_batch_is_under_way_live_work_is_not_asked_for(
    make_world,
) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", lane="backfill") for n in range(50)))
    world.put(*(event(f"q{n}", lane="backfill", trigger="exit") for n in range(50)))
    world.drain()
    world.put(*(event(f"r{n}", lane="backfill") for n in range(50)))
    world.put(*(event(f"s{n}", lane="backfill", trigger="exit") for n in range(50)))
    world.redis.asked.clear()

    tally, _ = world.drain()

    assert tally.requests == 2
    assert world.redis.asked["SMEMBERS"] == 2, "once while it is rendered, once behind it"


def test_a_drain_of_a_backfill_hears_of_live_work_after_that_which_it_has_delivered(
    make_world,
) -> None:
    wakeup: list[bytes | None] = []

    def puts_another(sending: Sending) -> Reply:
        if members(world) and not wakeup:
            world.put_now(event("bob"))
            wakeup.append(world.store.client.get(world.store.keys.wakeup))
        return taken(sending)

    world = make_world(puts_another)
    world.render_seconds = 0.03
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))

    def call() -> None:
        world.put_now(event("ada"))
        assert at_once(world.partition().take()) is None, "whom its call woke is sent away"
        world.live_calls += 1

    world.loop.call_later(0.01, call)

    tally, _ = world.drain()

    assert wakeup == [b"1"], "somebody is woken"
    assert tally.delivered == 1_502


def test_one_request_of_a_backfill_is_answered_before_the_live_work_that_waits(make_world) -> None:
    world = make_world(api=replace(InsiderApi(), max_users=50))
    world.render_seconds = 0.03
    world.limits = replace(world.limits, in_flight=1)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))

    call_live_soon(world)

    world.drain()

    lanes = [each.positions[0].partition("|")[0] for each in world.sendings]
    assert lanes[:3] == ["backfill", "live", "backfill"]


def test_a_live_event_of_a_person_whose_backfill_is_not_sent_yet_waits_for_it(make_world) -> None:
    def answers_the_first_soon(sending: Sending) -> Reply:
        reply = taken(sending)
        reply.answer_seconds = 1.0 if len(world.sendings) == 1 else 4.0
        return reply

    world = make_world(answers_the_first_soon, api=replace(InsiderApi(), max_users=5))
    world.limits = replace(world.limits, in_flight=2, slice_seconds=60.0)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(20)))
    world.loop.call_later(0.5, lambda: world.put_now(event("p19", trigger="exit", at=2)))

    world.drain_until_nothing_is_left()

    assert "p19@example.com" not in members(world)
    assert len(members(world)) == 19


def test_what_was_prepared_waits_for_people_of_live_work_that_is_in_doubt_since(make_world) -> None:
    def fails(sending: Sending) -> Reply:
        reply = taken(sending)
        if sending.positions[0].startswith("live|"):
            return reply if world.tallies else failed(applied=True)
        reply.answer_seconds = 4.0
        return reply

    world = make_world(fails)
    world.limits = replace(world.limits, batch_entries=20, slice_seconds=60.0)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(20)))
    world.put(*(event(f"q{n}", lane="backfill") for n in range(10)))
    world.loop.call_later(1.0, lambda: world.put_now(event("q3", trigger="exit", at=2)))

    world.drain()

    assert world.rendered_ahead["enter"] == 10, "it was prepared"
    assert world.count("delivered") == 29
    world.drain_until_nothing_is_left()
    assert len(members(world)) == 29
    assert "q3@example.com" not in members(world)


def test_what_a_backfill_left_for_live_work_goes_before_what_is_rendered_then(make_world) -> None:
    def answer(sending: Sending) -> Reply:
        if sending.users[0]["identifiers"]["email"].startswith("p"):
            world.put_now(event(f"live{len(world.sendings)}"))
            world.live_calls += 1
        return taken(sending)

    world = make_world(answer, api=replace(InsiderApi(), max_users=1))
    world.limits = replace(world.limits, in_flight=1)
    world.put(*(event(f"p{n}", lane="backfill", behave="apart") for n in range(130)))

    world.drain()

    sent = [user["identifiers"]["email"] for s in world.sendings for user in s.users]
    of_backfill = [email for email in sent if email.startswith("p")]
    assert of_backfill[:4] == [f"p{n}@example.com" for n in range(4)]
