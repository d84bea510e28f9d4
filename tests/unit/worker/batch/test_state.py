"""What a fresh holder of a lease makes of what it was told."""

from types import SimpleNamespace
from typing import Any

from segrelay.worker.batch.partition import Hold, State, TakenPartition
from segrelay.worker.contract.keys import REACHED_KEPT
from segrelay.worker.core.backoff import Backoff, Wait

NOW_MS = 1_764_000_000_000
MINUTE_MS = 60_000


def state_with(until_ms: int) -> State:
    holding = TakenPartition(
        now_ms=NOW_MS,
        streams=("live|vip",),
        intents=(),
        rendering=frozenset(),
        waits={"vip": Wait(3, until_ms, 7)},
        backoffs={"live|vip|1-0": Backoff(8, 2, 1, until_ms, 7)},
        holds={"live|vip": Hold("1-0", until_ms)},
    )
    drain: Any = SimpleNamespace(
        clock=SimpleNamespace(seconds=lambda: 0.0),
        late_seconds=30.0,
        triggers={},
        paused=frozenset(),
        scopes={},
    )
    return State.of(holding, drain)


def test_what_waits_goes_on_waiting() -> None:
    until_ms = NOW_MS + 5 * MINUTE_MS

    state = state_with(until_ms)

    assert not state.is_due("vip")
    assert state.backoffs["live|vip|1-0"].not_before_ms == until_ms
    assert state.holds == {"live|vip": Hold("1-0", until_ms)}


def test_what_waits_by_a_clock_that_was_set_back_is_due_and_keeps_its_history() -> None:
    until_ms = NOW_MS + 6 * MINUTE_MS

    state = state_with(until_ms)

    assert state.is_due("vip")
    assert not state.is_ahead(until_ms)
    assert (state.waits["vip"].attempts, state.backoffs["live|vip|1-0"].failures) == (3, 2)


def test_a_drain_learns_who_is_not_kept_as_reached() -> None:
    state = state_with(NOW_MS)
    digests = [at.to_bytes(10, "big") for at in range(1, 2 * REACHED_KEPT, 2)]

    state.reach(digest.hex() for digest in digests[1:])
    few = state.is_sampled(digests[-1]), state.is_sampled(b"\xff" * 10)
    state.reach([digests[0].hex()])

    assert few == (True, True)
    assert state.is_sampled(digests[-1])
    assert not state.is_sampled(b"\xff" * 10)


def test_the_same_people_reached_again_drive_out_nobody() -> None:
    state = state_with(NOW_MS)
    digests = [at.to_bytes(10, "big").hex() for at in range(REACHED_KEPT - 1)]

    state.reach(digests)
    state.reach(digests)

    assert state.is_sampled(b"\xff" * 10)
