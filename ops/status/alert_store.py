"""The book of announced problems and waiting messages in Redis, which all processes share."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

from segrelay.ops.state import opened
from segrelay.ops.status.problems import ATTENTION, ILL, HealthProblem
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.lock import take_turn
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import NotifySettings

LOOK_SECONDS: Final = 2.0
CALM_SECONDS: Final = 10.0
"""Seconds without a problem after which it is over."""
QUIET_SECONDS: Final = 600.0
"""Seconds within which a problem that returns counts as coming and going: its end is announced only
after this time without it."""
LASTS_SECONDS: Final = 15.0
"""Seconds after which a problem that comes and goes is told again because it lasts; twice as long
each further time, up to `LONGEST_LASTS_SECONDS`."""
LONGEST_LASTS_SECONDS: Final = 300.0
CLAIM_SECONDS: Final = 15.0
"""Seconds after which a message of a process that vanished is sent by another one. A process that
ends in good order sends it before."""
FRESH_SECONDS: Final = 5.0
"""Seconds of `CLAIM_SECONDS` in which the process that took a message may begin to send it."""
AlertFate = Literal["sent", "not_sent", "in_doubt"]
SENT: Final[AlertFate] = "sent"
NOT_SENT: Final[AlertFate] = "not_sent"
IN_DOUBT: Final[AlertFate] = "in_doubt"
"""The fate of a message without an answer, which is sent once more at most."""
MOST_MESSAGES: Final = 200
MOST_TRIES: Final = 8
LONGEST_WAIT_SECONDS: Final = 60.0
AlertKind = Literal["begin", "worse", "reminder", "end"]
BEGIN: Final[AlertKind] = "begin"
REMINDER: Final[AlertKind] = "reminder"
END: Final[AlertKind] = "end"


@dataclass(frozen=True, slots=True)
class Alert:
    """A message: a problem begins, is ill now, is still there, or is over.

    Args:
        at_ms: The time when that was noticed, by Redis' clock.
    """

    kind: AlertKind
    at_ms: int
    first_ms: int
    is_restless: bool
    problem: HealthProblem

    @property
    def is_over(self) -> bool:
        """Say whether it is the message about the end."""
        return self.kind == END


@dataclass(frozen=True, slots=True)
class TakenAlert:
    """A message that this process may send, for a while.

    Args:
        epoch: Of the lock of the outbox, which this process holds meanwhile.
        fresh_until: By this process' clock; later somebody else may be sending it.
    """

    alert: Alert
    number: str
    tries: int
    epoch: int
    fresh_until: float

    def may_be_sent(self) -> bool:
        """Say whether no other process can have taken the message while this one stood still."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) < self.fresh_until


@dataclass(frozen=True, slots=True)
class AlertStore:
    """The announced problems and the waiting messages of an installation.

    Args:
        client: With short timeouts.
    """

    client: Redis
    settings: NotifySettings

    def may_look(self) -> bool:
        """Say whether it is this process' turn to judge: every two seconds, one process may."""
        lock_ms = round(LOOK_SECONDS * 1_000) - 100
        return take_turn(self.client, keys.ALERTS_LOCK, lock_ms)

    def observe(self, problems: Iterable[HealthProblem], read_ms: int) -> int:
        """Record the problems of a look; return the number of new messages, -1 = it is outdated."""
        announced = {ILL} | ({ATTENTION} if self.settings.severity == ATTENTION else set())
        documents = joined(
            one for one in problems if one.severity in announced and one.name != UNHEARD
        )
        seconds = {
            "stands": self.settings.after_seconds,
            "calm": CALM_SECONDS,
            "quiet": QUIET_SECONDS,
            "lasts": max(LASTS_SECONDS, self.settings.after_seconds),
            "longest": max(LONGEST_LASTS_SECONDS, self.settings.after_seconds),
            "remind": self.settings.remind_after_seconds,
        }
        limits = {name: round(value * 1_000) for name, value in seconds.items()}
        args = (
            read_ms,
            orjson.dumps(limits | {"kept": MOST_MESSAGES}),
            *(part for key, text in documents.items() for part in (key, text)),
        )
        return int(self._run("alerts_observe", (keys.ALERTS, keys.ALERTS_OUTBOX), args))

    def take(self) -> TakenAlert | None:
        """Return the oldest message, unless it is not due or somebody else is sending it."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        claim_ms = round(CLAIM_SECONDS * 1_000)
        args = (secrets.token_hex(8), claim_ms)
        found = self._run("alerts_take", (keys.ALERTS_OUTBOX, keys.ALERTS), args)
        if not found:
            return None
        number, text, tries, epoch = found
        fresh_until = now + FRESH_SECONDS
        return TakenAlert(_loads(text), number.decode(), int(tries), int(epoch), fresh_until)

    def conclude(self, taken: TakenAlert, fate: AlertFate, reason: str = "") -> None:
        """Note the fate of a message: it is tried again unless it was sent, or tried too often.

        Args:
            taken: The message.
            fate: The end of it.
            reason: The reason why it was not sent.
        """
        is_over = fate == SENT or taken.tries >= MOST_TRIES
        again_ms = -1 if is_over else round(wait_seconds(taken.tries) * 1_000)
        args = (taken.number, taken.epoch, again_ms, int(fate == IN_DOUBT), reason)
        self._run("alerts_settle", (keys.ALERTS_OUTBOX, keys.ALERTS), args)

    def _run(self, name: str, script_keys: tuple[str, ...], args: tuple[Any, ...]) -> Any:
        return opened.run(self.client, name, [ScriptCall(script_keys, args)])[0]


UNHEARD: Final = "notify_fails"
"""The problem that messages are not taken; it is not told to those who do not take them."""
_FAILING: Final = "failing"


@dataclass(frozen=True, slots=True)
class AlertFailure:
    """The reason why the address of messages takes none, and the failed tries in a row."""

    since_ms: int
    tries: int
    reason: str


def read_failure(client: Redis) -> AlertFailure | None:
    """Return why messages were not taken lately; None = the last one was."""
    stored: Any = client.hget(keys.ALERTS, _FAILING)
    return AlertFailure(**orjson.loads(stored)) if stored else None


def forget_failure(client: Redis) -> None:
    """Forget that messages were not taken: one was, just now."""
    client.hdel(keys.ALERTS, _FAILING)


def wait_seconds(tries: int) -> float:
    """Return the seconds after which a message is tried again."""
    return min(2.0 ** (tries - 1), LONGEST_WAIT_SECONDS)


def joined(problems: Iterable[HealthProblem]) -> dict[str, bytes]:
    """Return problems as JSON by name and subject; those with equal ones are joined into one."""
    found: dict[str, list[HealthProblem]] = defaultdict(list)
    for one in problems:
        found[f"{one.name}|{one.subject}"].append(one)
    return {
        key: orjson.dumps(
            replace(same[0], message="; ".join(one.message for one in same)).document()
        )
        for key, same in found.items()
    }


def _loads(text: bytes) -> Alert:
    stored = orjson.loads(text)
    return Alert(
        stored["kind"],
        int(stored["at"]),
        int(stored["first"]),
        bool(stored.get("restless")),
        HealthProblem.read(orjson.loads(stored["problem"])),
    )
