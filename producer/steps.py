"""Work that is done in steps, with a state and a lock in Redis: one step at a time.

A step takes the lock, saves the state as it goes, and ends the lock; a step that died leaves a lock
that lapses. The sweep reads when the next step is due from the same key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.records import read_record, require_record
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.lock import Lock
from segrelay.worker.contract.redis.scripts import Value
from segrelay.worker.errors import LeaseLost

STEP_SECONDS: Final = 5.0
"""The seconds after which a step begins no further request; one takes at most five more."""
LOCK_MS: Final = 20_000
"""The ms after which a lock lapses: longer than a step takes. Saving the state extends it."""
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0
_STATE: Final = "state"


@dataclass(frozen=True, slots=True)
class Step:
    """The result of a step.

    Args:
        line: The result in words, for people, e.g. in Flower.
        more: True if there is a next step.
        wait_seconds: The time before which the next step should not begin.
        taken: False if another step was under way, so that this one did nothing.
    """

    line: str
    more: bool = False
    wait_seconds: float = 0.0
    taken: bool = True


def wait_seconds(failures: int) -> float:
    """Return the delay in seconds after a number of steps without progress."""
    return min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(failures, 9))


class StepState:
    """The state of some work that is done in steps; a dataclass, which Redis keeps as JSON.

    Attributes:
        next_ms: The time at which the next step is due.
        begins_anew: False if the work would lose something where its state can't be read.
    """

    __slots__ = ()
    next_ms = 0
    begins_anew: ClassVar = True

    def dumps(self) -> bytes:
        return orjson.dumps(self, default=tuple)

    @classmethod
    def loads(cls, text: bytes, name: str = "", unreadable: list[str] | None = None) -> Self:
        """Read the state that `dumps` wrote, which may be damaged; see `read_record`.

        Raises:
            FormatUnknown: It can't be read, and does not begin anew.
        """
        if not cls.begins_anew:
            return require_record(cls, text or b"{}", name)
        return read_record(cls, text or b"{}", name, unreadable) or cls()


_State = TypeVar("_State", bound=StepState)


class StepStore(Generic[_State]):
    """The state and the lock, in Redis, of one piece of work that is done in steps.

    Args:
        shown: The name of the work in messages, e.g. `sync 'vip'`.
        kind: The class of the state.

    Attributes:
        epoch: The number of the step that was taken last; those of later steps are higher. Where a
            step writes elsewhere, it is kept beside what is written, and a lower one is refused.
    """

    def __init__(self, client: Redis, key: str, shown: str, kind: type[_State]) -> None:
        self._client = client
        self._key = key
        self._shown = shown
        self._kind = kind
        self._lock = Lock(client, key, LOCK_MS, _STATE)
        self.epoch = 0

    def step(self, work: Callable[[_State, int], Step]) -> Step:
        """Do one step, unless another one is under way or begins meanwhile.

        Args:
            work: A function that gets the state and the time (ms) by Redis' clock, and saves the
                state as it ends.
        """
        taken = self.take()
        if taken is None:
            return Step("another step of it is under way", taken=False)
        try:
            return work(*taken)
        except LeaseLost as error:
            return Step(error.message, taken=False)

    def take(self) -> tuple[_State, int] | None:
        """Take the lock; returns the state and Redis' clock (ms), None if a step is under way.

        Raises:
            FormatUnknown: The state can't be read, and does not begin anew.
        """
        taken = self._lock.take(wakeup=keys.wakeup(self._key))
        if not taken.epoch:
            return None
        self.epoch = taken.epoch
        return self._read(taken.field), taken.at_ms

    def save(self, state: _State, *, next_ms: int | None = None, ends: bool = False) -> None:
        """Write the state; extend the lock, or give it back if the step ends.

        Args:
            state: The state.
            next_ms: The time at which the next step is due; None = the state has it.
            ends: True if the step has done its work, and gives the lock back.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        fields: dict[str, Value] = {
            _STATE: state.dumps(),
            "next": state.next_ms if next_ms is None else next_ms,
        }
        if self._lock.save(self.epoch, fields, ends=ends) is None:
            raise self.lost()

    def lost(self) -> LeaseLost:
        """Return the error for a step that has lost its lock to another step."""
        return LeaseLost(f"Another step of {self._shown} has begun, so this one changes nothing.")

    def peek(self) -> _State:
        """Return the state as it is now; raises as `take`."""
        text: Any = self._client.hget(self._key, _STATE)
        return self._read(text or b"")

    def _read(self, text: bytes) -> _State:
        return self._kind.loads(text, self._shown)

    def now_ms(self) -> int:
        return now_ms(self._client)
