"""The order of two events of one profile and audience: the one that beats the other."""

from __future__ import annotations

from typing import NamedTuple

from worker.contract.words import Direction


class Claim(NamedTuple):
    """The claim of a delivery about one profile and one audience.

    Attributes:
        time_us: Of the event, in µs since 1970.
        trigger: Which trigger delivers it; a name or its number, one of the two throughout.
    """

    time_us: int
    direction: Direction
    trigger: str | int


def beats(newer: Claim, older: Claim) -> bool:
    """Say whether `newer` makes `older` untrue or useless.

    Both are of the same profile and audience. Newer is the later time; at equal times the exit.
    It beats what its own trigger would deliver, and what says the other direction, by any trigger.
    A change is about its own trigger only.
    """
    same_trigger = newer.trigger == older.trigger
    if Direction.CHANGE in (newer.direction, older.direction):
        return same_trigger and newer.time_us > older.time_us
    if not is_newer(newer.time_us, newer.direction, older.time_us, older.direction):
        return False
    return same_trigger or newer.direction != older.direction


def is_newer(
    time_us: int, direction: Direction, other_time_us: int, other_direction: Direction
) -> bool:
    """Say which of two moments is newer: the later time, and the exit at equal times."""
    return (time_us, direction is Direction.EXIT) > (
        other_time_us,
        other_direction is Direction.EXIT,
    )
