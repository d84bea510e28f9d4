"""Messages about a Redis that can't be reached.

The processes agree in Redis about who sends a message, which they can't do then. So each machine
announces for itself that it does not reach Redis, and names itself in the message. Of its
processes, the one that holds a lock on the configuration file does it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.status.health.judgement import UNREACHABLE
from ops.status.health.problem import ILL, HealthProblem
from ops.status.notices.book import (
    CALM_SECONDS,
    IN_DOUBT,
    MOST_TRIES,
    QUIET_SECONDS,
    SENT,
    Notice,
    NoticeFate,
    wait_seconds,
)

LEAST_SECONDS: Final = 5.0
"""Seconds of the shortest outage of Redis that is announced; a restart is over sooner."""


@dataclass(slots=True)
class MachineLock:
    """A lock that one process of a machine holds, and that ends with the process.

    Args:
        path: A file that all of them can read, and that has to be there anyway.
    """

    path: Path
    _file: int | None = None

    def take(self) -> bool:
        """Take the lock; return whether this process holds it, or can't know if another does."""
        if self._file is not None:
            return True
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            return not isinstance(error, BlockingIOError)
        self._file = file
        return True

    def give_back(self) -> None:
        """Release the lock for another process of the machine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@dataclass(slots=True)
class OutageAnnouncer:
    """Announces that Redis can't be reached from this machine, and that it can again.

    An outage within ten minutes after another one comes and goes: its end is announced after ten
    minutes without one, and the lock is kept until then, so that one process does all of it.

    Args:
        take, give_back: Of the machine's lock.
        after_seconds: An outage that is over sooner is not announced.
        now_seconds: A clock that is never set.
    """

    send: Callable[[Notice, int], NoticeFate]
    take: Callable[[], bool]
    give_back: Callable[[], None]
    after_seconds: float
    now_seconds: Callable[[], float]
    now_ms: Callable[[], int]
    _down_at: float | None = None
    _up_at: float | None = None
    _ended_at: float | None = None
    _told: Notice | None = None
    _first_ms: int = 0
    _unsent: list[Notice] = field(default_factory=list)
    _tries: int = 0
    _is_in_doubt: bool = False
    _next_at: float = 0.0

    def observe(self, failure: str) -> None:
        """Record why Redis can't be reached now ("" = it can), and send the oldest message."""
        now = self.now_seconds()
        if failure:
            self._is_down(failure, now)
        else:
            self._is_up(now)
        self._send_oldest(now)

    def _is_down(self, failure: str, now: float) -> None:
        self._up_at = None
        if self._down_at is None:
            self._down_at = now
            self._first_ms = self._told.first_ms if self._told else self.now_ms()
        if self._told or now - self._down_at < self.after_seconds or not self.take():
            return
        is_restless = self._ended_at is not None and now - self._ended_at < QUIET_SECONDS
        self._told = self._notice(failure, is_restless=is_restless)
        self._unsent.append(self._told)

    def _is_up(self, now: float) -> None:
        self._down_at = None
        self._up_at = now if self._up_at is None else self._up_at
        told = self._told
        calm_seconds = QUIET_SECONDS if told and told.is_restless else CALM_SECONDS
        if told and now - self._up_at >= calm_seconds:
            self._unsent.append(
                Notice(
                    is_over=True,
                    at_ms=self.now_ms(),
                    first_ms=told.first_ms,
                    is_restless=told.is_restless,
                    problem=told.problem,
                )
            )
            self._told, self._ended_at = None, now
        if not told and not self._unsent and now - (self._ended_at or 0.0) >= QUIET_SECONDS:
            self.give_back()

    def _notice(self, failure: str, *, is_restless: bool) -> Notice:
        machine = socket.gethostname()
        told = f"this machine has no connection to Redis, so it sends and stores nothing: {failure}"
        problem = HealthProblem(
            UNREACHABLE, ILL, machine, told, "segrelay redis status", self._first_ms
        )
        return Notice(
            is_over=False,
            at_ms=self.now_ms(),
            first_ms=self._first_ms,
            is_restless=is_restless,
            problem=problem.document(),
        )

    def _send_oldest(self, now: float) -> None:
        if not self._unsent or now < self._next_at:
            return
        self._tries += 1
        fate = self.send(self._unsent[0], self._tries)
        is_over = fate == SENT or self._tries >= MOST_TRIES or self._is_in_doubt
        if is_over:
            self._unsent.pop(0)
            self._tries, self._next_at, self._is_in_doubt = 0, 0.0, False
        else:
            self._next_at = now + wait_seconds(self._tries)
            self._is_in_doubt = fate == IN_DOUBT
