"""The repeating of what Redis did not confirm."""

import pytest

from segrelay.worker.contract.patience import repeat_until_confirmed
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


def test_what_a_client_has_waited_already_counts() -> None:
    told: list[str] = []

    with pytest.raises(RedisUnavailable):
        repeat_until_confirmed(Action(away(60)), told.append)
    assert told == []


def test_who_repeats_all_of_it_ends_when_a_part_has_been_given_up() -> None:
    told: list[str] = []
    part = Action(away(40), away(60))

    with pytest.raises(RedisUnavailable):
        repeat_until_confirmed(lambda: repeat_until_confirmed(part, told.append), told.append)
    assert len(told) == 1


def test_a_change_of_the_partitions_ends_it_at_once() -> None:
    told: list[str] = []
    with pytest.raises(SealedAnew):
        repeat_until_confirmed(Action(SealedAnew(), SealedAnew()), told.append)
    assert told == []


def test_other_errors_are_repeated_only_where_that_is_said() -> None:
    told: list[str] = []

    assert repeat_until_confirmed(Action(LeaseLost("lost")), told.append, also=(LeaseLost,))
    with pytest.raises(LeaseLost):
        repeat_until_confirmed(Action(LeaseLost("lost")), told.append)
