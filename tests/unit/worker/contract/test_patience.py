"""The repeating of what Redis did not confirm."""

import pytest

from segrelay.worker.contract.redis.url import repeat_until_confirmed
from segrelay.worker.errors import LeaseLost, RedisUnavailable, SealedAnew


def away(waited_seconds: float = 0.0) -> RedisUnavailable:
    return RedisUnavailable("Redis is away.", waited_seconds)


class Action:
    """An action that fails with these errors, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_an_action_is_repeated_until_redis_has_confirmed_it() -> None:
    told: list[str] = []

    assert repeat_until_confirmed(Action(away(), away(30)), told.append) == "done"
    assert told == ["Redis is away."] * 2


@pytest.mark.parametrize(
    ("errors", "ended_by"),
    [([away(60)], RedisUnavailable), ([SealedAnew(), SealedAnew()], SealedAnew)],
    ids=["a client has waited already", "the partitions were changed"],
)
def test_what_waiting_does_not_help_ends_it_at_once(
    errors: list[Exception], ended_by: type[Exception]
) -> None:
    told: list[str] = []

    with pytest.raises(ended_by):
        repeat_until_confirmed(Action(*errors), told.append)
    assert told == []


def test_who_repeats_all_of_it_ends_when_a_part_has_been_given_up() -> None:
    told: list[str] = []
    part = Action(away(40), away(60))

    with pytest.raises(RedisUnavailable):
        repeat_until_confirmed(lambda: repeat_until_confirmed(part, told.append), told.append)
    assert len(told) == 1


def test_other_errors_are_repeated_only_where_that_is_said() -> None:
    told: list[str] = []

    assert repeat_until_confirmed(Action(LeaseLost("lost")), told.append, also=(LeaseLost,))
    with pytest.raises(LeaseLost):
        repeat_until_confirmed(Action(LeaseLost("lost")), told.append)
