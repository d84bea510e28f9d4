"""While requests are under way, the next batch is prepared; nothing is decided before its turn."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from segrelay.worker.batch.judge import OPEN_BYTES
from segrelay.worker.batch.read import order_of
from segrelay.worker.batch.render import RENDER_GROUP
from segrelay.worker.errors import RedisUnavailable
from tests.conformance.drain.fake_insider import (
    DELETE,
    Reply,
    Sending,
    silent,
    taken,
)
from tests.conformance.drain.world import World, event, members

ENTRIES = 100
ANSWER_SECONDS = 0.1


def answers_late(sending: Sending) -> Reply:
    reply = taken(sending)
    reply.answer_seconds = ANSWER_SECONDS
    return reply


def of_batches(make_world, responds=answers_late) -> World:
    """Return a world whose batches hold little, and whose slice is long."""
    world = make_world(responds)
    world.limits = replace(world.limits, batch_entries=ENTRIES, slice_seconds=60.0)
    return world


def test_the_next_batch_is_rendered_while_requests_are_under_way(make_world) -> None:
    world = of_batches(make_world)
    world.render_seconds = 0.08
    world.put(*(event(f"p{n}") for n in range(10 * ENTRIES)))
    begun = world.loop.time()

    tally, _ = world.drain()

    assert tally.delivered == 10 * ENTRIES
    assert world.rendered["enter"] == ENTRIES, "only the first"
    assert world.rendered_ahead["enter"] == 9 * ENTRIES
    assert world.loop.time() - begun < 10 * ANSWER_SECONDS + 2 * world.render_seconds


@pytest.mark.parametrize(("slice_seconds", "batches"), [(0.08, 2), (0.05, 1)])
def test_after_the_slice_nothing_is_prepared_but_what_is_prepared_is_sent_soon_or_left(
    make_world, slice_seconds: float, batches: int
) -> None:
    world = of_batches(make_world)
    world.limits = replace(world.limits, slice_seconds=slice_seconds)
    world.put(*(event(f"p{n}") for n in range(10 * ENTRIES)))

    tally, _ = world.drain()

    assert tally.delivered == batches * ENTRIES
    assert world.rendered.total() + world.rendered_ahead.total() == 2 * ENTRIES


def test_after_the_slice_what_has_to_be_read_anew_is_left(make_world) -> None:
    world = of_batches(make_world)
    world.limits = replace(world.limits, slice_seconds=0.08)
    world.put(*(event(f"p{n}") for n in range(ENTRIES)))
    world.put(*(event(f"q{n}", trigger="overwrite") for n in range(ENTRIES)))
    world.put(*(event(f"r{n}") for n in range(ENTRIES)))
    world.loop.call_later(0.9 * ANSWER_SECONDS, lambda: discard(world, "overwrite"))

    tally, _ = world.drain()

    assert tally.delivered == ENTRIES


def test_where_something_waits_already_nothing_is_prepared(make_world) -> None:
    world = of_batches(
        make_world, lambda sending: silent() if "p0" in str(sending) else taken(sending)
    )
    world.put(event("p0"))
    world.drain()
    world.put(*(event(f"q{n}", trigger="overwrite") for n in range(3 * ENTRIES)))

    tally, _ = world.drain()

    assert tally.delivered == 3 * ENTRIES
    assert not world.rendered_ahead


def test_live_work_comes_first_whatever_was_prepared(make_world) -> None:
    world = of_batches(make_world)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(10 * ENTRIES)))
    world.loop.call_later(ANSWER_SECONDS / 2, lambda: world.put_now(event("ada")))

    tally, _ = world.drain()

    assert [len(sending.positions) for sending in world.sendings[:3]] == [ENTRIES, 1, ENTRIES]
    assert "ada@example.com" in members(world)
    assert tally.delivered == 10 * ENTRIES + 1
    assert world.rendered_ahead["enter"] == 9 * ENTRIES, "what was prepared still had its turn"


@pytest.mark.parametrize("live_at", [0.02, 10.0])
def test_nothing_is_rendered_ahead_of_live_work_or_after_the_last_answer(
    make_world, live_at: float
) -> None:
    def answers(sending: Sending) -> Reply:
        reply = taken(sending)
        reply.answer_seconds = 0.5
        return reply

    world = of_batches(make_world, answers)
    world.limits = replace(world.limits, batch_entries=1_000)
    world.render_seconds = 0.08
    world.put(*(event(f"p{n}", lane="backfill") for n in range(2_000)))
    rendered = 10 * world.render_seconds
    world.loop.call_later(rendered + live_at, lambda: world.put_now(event("ada")))

    world.drain()

    most = {0.02: 2, 10.0: 7}[live_at]
    assert 1 < world.rendered_ahead.total() <= most * RENDER_GROUP + 1, "one of them is live"


def discard(world: World, trigger: str) -> None:
    """Take back what waits, once it was prepared."""
    assert world.rendered_ahead[trigger] == ENTRIES
    world.store.discard(f"live|{trigger}")


def test_what_a_doubted_template_made_is_rendered_again(make_world) -> None:
    world = of_batches(make_world)
    world.put(*(event(f"p{n}") for n in range(2 * ENTRIES)))
    world.loop.call_later(0.9 * ANSWER_SECONDS, lambda: world.doubted.add("enter"))

    tally, _ = world.drain()

    assert tally.delivered == 2 * ENTRIES
    assert world.rendered_ahead["enter"] == ENTRIES
    assert world.rendered["enter"] == 2 * ENTRIES


def test_after_a_slow_event_nothing_is_rendered_ahead(make_world) -> None:
    world = of_batches(make_world)
    world.limits = replace(world.limits, batch_entries=4 * RENDER_GROUP)
    world.put(*(event(f"p{n}") for n in range(5 * RENDER_GROUP)), event("ada", behave="slow"))
    world.put(*(event(f"q{n}") for n in range(4 * RENDER_GROUP - 1)))

    world.drain()

    assert world.store.waiting() == 0
    assert world.rendered_ahead["enter"] == (2 + 1) * RENDER_GROUP, "of the next, and of the last"


@pytest.mark.parametrize("behave", ["assert", "fail", "stumble"])
def test_what_does_not_render_has_its_turn_like_before(make_world, behave: str) -> None:
    world = of_batches(make_world)
    bad = [event(f"bad{n}", behave=behave) for n in range(3)]
    world.put(*(event(f"p{n}") for n in range(ENTRIES)), *bad, *(event(f"q{n}") for n in range(20)))

    tally, _ = world.drain()

    assert tally.delivered == ENTRIES + 20
    assert tally.skipped + tally.dead == 3
    assert world.store.waiting() == 0


def test_a_profile_that_kills_does_so_only_while_no_request_is_under_way(make_world) -> None:
    world = of_batches(make_world)
    world.put(*(event(f"p{n}") for n in range(ENTRIES)), event("bad", behave="kill"), event("q"))

    assert world.drain() is None
    assert not world.store.intents
    world.drain_until_nothing_is_left()

    assert len(members(world)) == ENTRIES + 1
    assert world.count("dead") == 1


@pytest.mark.parametrize("error", [RedisUnavailable("Redis is away."), IndexError("a bug")])
def test_an_error_while_preparing_costs_nothing_but_time(make_world, error) -> None:
    world = of_batches(make_world)
    world.ahead_error = error
    world.put(*(event(f"p{n}") for n in range(3 * ENTRIES)))

    with capture_logs() as logs:
        tally, _ = world.drain()

    assert tally.delivered == 3 * ENTRIES
    told = [line for line in logs if line["event"] == "preparing.failed"]
    assert bool(told) == isinstance(error, IndexError)


def test_what_was_too_much_to_be_decoded_comes_before_what_was_prepared(make_world) -> None:
    world = of_batches(make_world)
    large = "large" * (OPEN_BYTES // ENTRIES // 4)
    world.put(*(event(f"rare{n}", trigger="exit") for n in range(3)))
    world.put(*(event(f"p{n}", large=large) for n in range(ENTRIES)))
    world.put(*(event(f"q{n}") for n in range(2 * ENTRIES)))

    world.drain()

    entering = [sending for sending in world.sendings if sending.url != DELETE]
    ids = [order_of(p.rpartition("|")[2]) for sending in entering for p in sending.positions]
    assert len(entering[0].positions) < ENTRIES
    assert len(ids) == 3 * ENTRIES
    assert ids == sorted(ids)
