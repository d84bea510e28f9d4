"""The order of events of one profile and audience, of two and within a batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

from segrelay.worker.contract.ledger import is_newer
from segrelay.worker.contract.words import Direction


class LedgerEvent(NamedTuple):
    """An event as the ledger judges it: numbers stand for its trigger and audience.

    Attributes:
        time_us: Of the event, in µs since 1970.
        trigger: The number of the trigger that delivers it.
        audience: The audience's number.
        state: The event was made up by comparison.
        repair: True if it restores what a late request may have overwritten.
        profile_hash: Of a change's profile, 32 bits, never 0; 0 for other directions.
        replays: The number of times that it came back from the dead letters.
        again: Deliver it although it was delivered before, or is already there.
    """

    time_us: int
    direction: Direction
    trigger: int
    audience: int = 0
    state: bool = False
    repair: bool = False
    profile_hash: int = 0
    replays: int = 0
    again: bool = False


def supersedes(newer: LedgerEvent, older: LedgerEvent) -> bool:
    """Say whether `newer` makes `older` untrue or useless.

    Both are of the same profile and audience. Newer is the later time; at equal times the exit.
    It supersedes what its own trigger would deliver, and the other direction by any trigger.
    A change is about its own trigger only.
    """
    same_trigger = newer.trigger == older.trigger
    if Direction.CHANGE in (newer.direction, older.direction):
        return same_trigger and newer.time_us > older.time_us
    if not is_newer(newer.time_us, newer.direction, older.time_us, older.direction):
        return False
    return same_trigger or newer.direction != older.direction


T = TypeVar("T")


def contest(entrants: Sequence[tuple[Hashable, LedgerEvent, T]]) -> list[tuple[T, tuple[T, ...]]]:
    """Return the entrants that go on, in the order given, each with those that it supersedes.

    Linear in the number of entrants: of the deliveries about one thing only the newest of each
    trigger can win.

    Args:
        entrants: Profile and audience, the event about them, and what stands for it.
    """
    rivals: dict[Hashable, list[int]] = {}
    for position, (about, _, _) in enumerate(entrants):
        rivals.setdefault(about, []).append(position)
    winner_of: dict[int, int] = {}
    for positions in rivals.values():
        if len(positions) > 1:
            winner_of.update(_winners(positions, entrants))
    superseded: dict[int, list[T]] = {}
    for position, winner in winner_of.items():
        superseded.setdefault(winner, []).append(entrants[position][2])
    return [
        (entrant, tuple(superseded.get(position, ())))
        for position, (_, _, entrant) in enumerate(entrants)
        if position not in winner_of
    ]


def _winners(
    positions: list[int], entrants: Sequence[tuple[Hashable, LedgerEvent, T]]
) -> dict[int, int]:
    """Return for each superseded entrant one that goes on and supersedes it.

    What is superseded only by a superseded event goes on: it says what the newest says.
    """
    tops: dict[object, int] = {}
    for position in positions:
        event = entrants[position][1]
        top = tops.get((event.trigger, event.direction))
        if top is None or supersedes(event, entrants[top][1]):
            tops[event.trigger, event.direction] = position
    newest_first = sorted(tops.values(), key=lambda top: _moment(entrants[top][1]), reverse=True)
    going: list[int] = []
    for top in newest_first:
        if not any(supersedes(entrants[other][1], entrants[top][1]) for other in going):
            going.append(top)
    winners: dict[int, int] = {}
    for position in positions:
        for top in going:
            if supersedes(entrants[top][1], entrants[position][1]):
                winners[position] = top
                break
    return winners


def _moment(event: LedgerEvent) -> tuple[int, bool]:
    """Return a event's sort key: newest first, and none is superseded by one behind it."""
    return event.time_us, event.direction is Direction.EXIT
