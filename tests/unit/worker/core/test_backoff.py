"""When a failed delivery is tried again, with how many others, and when it dies."""

import pytest

from segrelay.worker.core.backoff import (
    CAP_SECONDS,
    RECENT_SECONDS,
    TRIES_ALONE,
    Backoff,
    Wait,
    after_failure,
    delay_seconds,
    is_to_blame,
)
from segrelay.worker.core.gate import SEVERAL, TriggerAnswers

NOW_MS = 1_000_000


def fail(backoff: Backoff | None, wait: Wait | None = None, *, users: int = 8, successes: int = 5):
    return after_failure(backoff, wait, users=users, successes=successes, now_ms=NOW_MS, jitter=0.5)


@pytest.mark.parametrize("attempts", [1, 2, 9, 17, 10_000])
def test_a_delay_grows_and_is_capped(attempts: int) -> None:
    assert 0 <= delay_seconds(attempts, 0.0) <= delay_seconds(attempts, 0.999) <= CAP_SECONDS
    assert delay_seconds(attempts, 0.5) <= delay_seconds(attempts + 1, 0.5)


def test_the_first_failure_lets_the_trigger_wait_and_halves_nothing() -> None:
    after = fail(None)

    assert after.wait == Wait(1, NOW_MS + 500, 5, since_ms=NOW_MS)
    assert after.backoff == Backoff(0, 1, 0, 0, 5, since_ms=NOW_MS)


def test_without_others_going_through_nothing_is_halved_nor_counted() -> None:
    backoff, wait = fail(None).backoff, fail(None).wait
    for _ in range(100):
        after = fail(backoff, wait, users=1)
        backoff, wait = after.backoff, after.wait

    assert backoff
    assert (backoff.width, backoff.tries_alone) == (0, 0)
    assert wait
    assert wait.not_before_ms - NOW_MS <= 1_000 * CAP_SECONDS


def test_with_others_going_through_it_is_halved_down_to_one() -> None:
    backoff, widths = Backoff(1_000, successes=0), []
    for successes in range(1, 11):
        after = fail(backoff, users=backoff.width, successes=successes)
        assert after.wait is None
        assert after.backoff
        backoff = after.backoff
        widths.append(backoff.width)

    assert widths == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1]


@pytest.mark.parametrize(
    ("before", "taken", "is_dead"),
    [
        (Backoff(1, 1, successes=5, refusal="400: no"), 6, True),
        (Backoff(1, 1, successes=5, refusal="400: no"), 5, False),
        (Backoff(1, 1, successes=5), 6, False),
        (None, 6, False),
    ],
    ids=["others were taken", "nobody was taken", "it failed before", "the first time"],
)
def test_who_is_refused_alone_twice_dies_if_others_were_taken_in_between(
    before: Backoff | None, taken: int, *, is_dead: bool
) -> None:
    again = after_failure(
        before, None, users=1, successes=taken, now_ms=NOW_MS, jitter=0.5, is_refused=True
    )

    assert (again.backoff is None) is is_dead


def test_alone_it_dies_at_the_fifth_try_while_others_go_through() -> None:
    backoff: Backoff | None = Backoff(1, successes=0)
    tries = 0
    while backoff:
        tries += 1
        backoff = fail(backoff, users=1, successes=tries).backoff

    assert tries == TRIES_ALONE


NEVER, TAKEN = TriggerAnswers(), TriggerAnswers(5.0)
LONG_AGO = TriggerAnswers(RECENT_SECONDS + 1)
HERE, ELSEWHERE, MANY = (TriggerAnswers(5.0, refused) for refused in ("here", "else", SEVERAL))


@pytest.mark.parametrize(
    ("own", "others", "status", "blamed"),
    [
        (NEVER, [], 400, False),
        (NEVER, [NEVER], 400, False),
        (NEVER, [TAKEN], 400, True),
        (MANY, [TAKEN], 422, True),
        (NEVER, [TAKEN], 404, False),
        (NEVER, [LONG_AGO], 400, False),
        (NEVER, [ELSEWHERE], 400, False),
        (TAKEN, [], 400, True),
        (LONG_AGO, [], 404, True),
        (HERE, [], 400, True),
        (ELSEWHERE, [], 400, False),
        (MANY, [], 400, False),
        (HERE, [LONG_AGO], 400, True),
        (HERE, [ELSEWHERE], 400, False),
    ],
)
def test_who_is_refused_alone_is_to_blame_only_while_others_are_taken(
    own: TriggerAnswers, others: list[TriggerAnswers], status: int, blamed: bool
) -> None:
    assert is_to_blame("here", status, own, others) is blamed
