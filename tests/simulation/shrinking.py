"""Shrinking a history that fails to few acts that still fail."""

from collections.abc import Callable

from tests.simulation.history import Act, History


def shrunk(history: History, fails: Callable[[History], bool]) -> History:
    """Return a part of a history that fails as well, with few acts.

    Acts are left out in runs, of half of them at first, then of fewer, and one by one in the end.
    """
    frame, acts = history
    size = max(1, len(acts) // 2)
    while True:
        at = 0
        while at < len(acts):
            fewer = acts[:at] + acts[at + size :]
            if fails(History(frame, fewer)):
                acts = fewer
            else:
                at += size
        if size == 1:
            return History(frame, acts)
        size //= 2


def told(history: History) -> str:
    """Return a history as text, an act a line."""
    return "\n".join([repr(history.frame), *map(_line, sorted(history.acts, key=_order))])


def _line(act: Act) -> str:
    what: object = act.what
    if act.does == "publish":
        some, position, fate = act.what
        told = [
            f"{e.person} {e.audience} {e.direction.value} at {e.at} for {one.trigger} in {one.lane}"
            + " (state)" * one.header.state
            for e, one in some
        ]
        what = (told, position, fate)
    return f"{act.at:g} {act.does} {what}"


def _order(act: Act) -> tuple[str, float]:
    return act.does, act.at
