"""The decision when a failed delivery is tried again, with how many others, and when it is dead.

Nothing moves: a failed request's deliveries stay where they are. What is remembered of each is a
`Backoff`; of their trigger in this partition a `Wait`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from segrelay.worker.core.gate import TriggerAnswers

BASE_SECONDS: Final = 1.0
CAP_SECONDS: Final = 300.0
TRIES_ALONE: Final = 5
RECENT_SECONDS: Final = 600.0
"""The age in seconds after which a success no longer says that the destination works."""
_ABOUT_THE_ADDRESS: Final = frozenset({403, 404, 405})
"""Statuses that refuse the path, the method or the sender; other triggers may get through."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The record of a delivery whose request failed: the size and time of its next request.

    Args:
        width: The number of users that its next request may have; 0 = as many as ever.
        failures: The number of its requests that failed.
        tries_alone: The number of these that carried nothing else while others of its trigger went
            through.
        not_before_ms: The time until which it steps aside (Redis' clock).
        successes: The number of deliveries that its trigger had made when it failed last; -1 = not
            known.
        refusal: The reason why its body was refused last, with nobody else in the request; "" = it
            was not.
        edition: The `LoadedTrigger.edition` at its last failure; "" = not kept.
        since_ms: The time of the first of these failures; 0 = not kept.
    """

    width: int
    failures: int = 0
    tries_alone: int = 0
    not_before_ms: int = 0
    successes: int = -1
    refusal: str = ""
    edition: str = ""
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait of a trigger whose requests from a partition all fail.

    Args:
        attempts: The number of requests that failed in a row, while nothing of the trigger went
            through.
        not_before_ms: The time (Redis' clock) until which its streams are not due.
        successes: The number of deliveries over all workers when its last request failed; -1 = not
            known.
        reason: The reason why the last one failed, for a person.
        edition: The `LoadedTrigger.edition` at its last failure; "" = not kept.
        since_ms: The time of the first of these failures; 0 = not kept.
    """

    attempts: int = 0
    not_before_ms: int = 0
    successes: int = -1
    reason: str = ""
    edition: str = ""
    since_ms: int = 0


def longest_ms(late_seconds: float) -> int:
    """Return the longest time (ms) that a wait, a backoff or an intent in doubt can last.

    What ends later than that was set before Redis' clock was set back, and has ended.
    """
    return round(1000 * max(CAP_SECONDS, late_seconds))


def delay_seconds(attempts: int, jitter: float) -> float:
    """Return an exponential delay with full jitter, capped.

    Args:
        attempts: The number of attempts that failed, from 1.
        jitter: A random number in [0, 1).
    """
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempts - 1, 16))
    return ceiling * jitter


@dataclass(frozen=True, slots=True)
class AfterFailure:
    """The decision after a failed request: a backoff, a wait, or death.

    Args:
        backoff: The backoff of deliveries with this history; None = they die.
        wait: The trigger's wait; None = others of it go through, so it does not wait.
    """

    backoff: Backoff | None
    wait: Wait | None


def after_failure(
    backoff: Backoff | None,
    wait: Wait | None,
    *,
    users: int,
    successes: int,
    now_ms: int,
    jitter: float,
    reason: str = "",
    others_are_taken: bool = False,
    is_refused: bool = False,
    edition: str = "",
) -> AfterFailure:
    """Decide what happens to the deliveries of a failed request.

    Args:
        backoff: Their backoff, if they failed before.
        wait: Their trigger's wait, if it waits.
        users: The number of deliveries of the failed request.
        successes: The number of deliveries that the trigger has made up to now, over all workers.
        now_ms: The time by Redis' clock.
        jitter: A random number in [0, 1).
        reason: The reason why it failed, for a person.
        others_are_taken: True if other deliveries of the trigger go through by the last answers,
            see `is_to_blame`.
        is_refused: True if the answer refused the body, as a 400 does: the destination did not
            fail.
        edition: The edition of the trigger whose template made the request.

    A request is halved, and a delivery alone is counted towards its death, only if others of the
    trigger went through since the last failure. Otherwise the trigger waits and nothing dies. A
    delivery is dead if it is then refused alone again, or fails alone for the fifth time.
    """
    known, waited = backoff or Backoff(0), wait or Wait()
    last = known.successes if backoff else waited.successes
    others_came_since = 0 <= last < successes
    kept = replace(
        known,
        failures=known.failures + 1,
        not_before_ms=0,
        successes=successes,
        refusal="",
        edition=edition,
        since_ms=known.since_ms or now_ms,
    )
    if not (others_are_taken or others_came_since):
        # The width stays: an outage says nothing about the body.
        attempts, since_ms = waited.attempts + 1, waited.since_ms or now_ms
        until_ms = now_ms + round(1000 * delay_seconds(attempts, jitter))
        return AfterFailure(kept, Wait(attempts, until_ms, successes, reason, edition, since_ms))
    tries_alone = known.tries_alone + (users == 1)
    # Refused alone before and now, while others were taken in between: that is about this one.
    is_refused_twice = bool(is_refused and known.refusal and others_came_since)
    if users == 1 and (is_refused_twice or tries_alone >= TRIES_ALONE):
        return AfterFailure(None, None)
    until_ms = now_ms + round(1000 * delay_seconds(max(1, tries_alone), jitter))
    width = max(1, users // 2)
    narrowed = replace(kept, width=width, tries_alone=tries_alone, not_before_ms=until_ms)
    return AfterFailure(narrowed, None)


def is_to_blame(
    position: str, status: int, own: TriggerAnswers, others: Iterable[TriggerAnswers]
) -> bool:
    """Say whether a body that was refused alone is to blame, not its trigger or the destination.

    It is if another trigger was taken lately and nothing of that one was refused since. It also is
    if its own trigger was taken before, and it is the only delivery of it that was refused since;
    but not where another trigger is refused too: then the destination may refuse everything.

    Args:
        position: The position of the delivery.
        status: The status of the answer.
        own: The answers to the last requests of its trigger.
        others: The answers to the last requests of the destination's other triggers.
    """
    answers = list(others)
    lately = (
        each.taken_seconds_ago is not None
        and each.taken_seconds_ago <= RECENT_SECONDS
        and not each.refused
        for each in answers
    )
    if status not in _ABOUT_THE_ADDRESS and any(lately):
        return True
    is_the_only_one = own.taken_seconds_ago is not None and own.refused in ("", position)
    return is_the_only_one and not any(each.refused for each in answers)
