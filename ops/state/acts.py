"""Records of an operator's acts, with the operator's name, and arguments without addresses."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Self

import typer

from segrelay.ops.state.opened import insist, opened
from segrelay.ops.terminal.console import confirmed, counted
from segrelay.ops.terminal.options import Yes
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.redis.acts import BEGUN, BROKEN_OFF, DONE, Act, note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.url import Answered
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import LeaseLost, RedisUnavailable, SealedAnew, UsageWrong

EXPORTED_FILE: Final = "exported to"
"""Name of the argument of an act that holds the path of an export with people's data."""
ACTOR_VARIABLE: Final = "SEGRELAY_ACTOR"
LONGEST_ACTOR: Final = 100
LONGEST_REASON: Final = 500
"""Largest number of characters of a reason, which is shown in messages and in tables."""
_MASK: Final = "•••"
_ADDRESS: Final = re.compile(r"[^\s@<>,;:=\"']+@[^\s@<>,;\"']+|\+\d[\d ()/-]{5,}\d")
_MAIL: Final = re.compile(r"([^\s@<>,;:=\"']+)@[^\s@<>,;\"']+")
_PERSONAL: Final = frozenset({"profile", "person"})
"""Names of arguments whose values identify a person."""


def _reason(given: str) -> str:
    """Return a reason without the addresses and the control characters that stand in it."""
    if len(given) > LONGEST_REASON:
        raise UsageWrong(
            f"The reason has {len(given):,} characters; at most {LONGEST_REASON} are kept."
            " Nothing was done; give a shorter one."
        )
    return masked(printable(given))


Why = Annotated[
    str,
    typer.Option(help="Say why; `segrelay audit` keeps it.", metavar="TEXT", callback=_reason),
]


@dataclass(frozen=True, slots=True)
class Reads:
    """The configuration and a connection, for a command that works on Redis.

    Args:
        command: Its words without `segrelay`, such as `dlq replay`.
    """

    command: str
    settings: Settings
    client: Redis

    @classmethod
    @contextmanager
    def opened(cls, command: str, **options: Any) -> Iterator[Self]:
        """Load the configuration and connect, as `segrelay.ops.state.opened.opened` does."""
        with opened() as (settings, client):
            yield cls(command, settings, client, **options)


@dataclass(frozen=True, slots=True)
class Acts(Reads):
    """The same for a command that does something which the audit keeps."""

    why: Why = ""

    def act(self, subject: str = "", **arguments: Any) -> Act:
        """Return the act of the command that runs."""
        return act_of(self.command, subject, reason=self.why, arguments=arguments)


@dataclass(frozen=True, slots=True)
class Asks(Acts):
    """The same for a command that asks before it does something."""

    yes: Yes = False

    def confirm(self, question: str) -> None:
        """Ask the person at the terminal, unless --yes was given.

        Raises:
            Abort: The answer is no.
        """
        confirmed(question, yes=self.yes)


@dataclass(slots=True)
class Doing:
    """An act of many steps that is under way, with its count, over all attempts."""

    count: int = 0

    def counted(self, label: str, steps: Iterable[int], total: int) -> int:
        """Run the steps, show their progress, and return how many there were until now."""
        counted(label, self._counting(steps), total)
        return self.count

    def _counting(self, steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            self.count += step
            yield step


def actor() -> str:
    """Return the name of the person at this terminal: $SEGRELAY_ACTOR, or user and host."""
    named = actor_named(os.environ.get(ACTOR_VARIABLE, ""))
    if named:
        return named
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()


def actor_named(text: str) -> str:
    """Return a name as acts record it: of an email address, only the part before the @.

    It still tells colleagues apart, and is shown in chats and tables.
    """
    line = "".join(filter(str.isprintable, " ".join(text.split())))
    return masked(_MAIL.sub(r"\1", line))[:LONGEST_ACTOR]


def act_of(
    what: str, subject: str = "", *, reason: str = "", arguments: Mapping[str, Any] | None = None
) -> Act:
    """Return an act of the person at this terminal; addresses in it are masked."""
    return Act(
        what,
        actor(),
        masked(subject),
        reason=masked(reason),
        arguments={
            name: _MASK if name in _PERSONAL else masked(_text(value))
            for name, value in (arguments or {}).items()
            if value
        },
        key=secrets.token_hex(8),
    )


def perform(
    client: Redis,
    act: Act,
    steps: Callable[[Doing], Answered],
    *,
    is_counted: bool = True,
) -> Answered:
    """Do an act of many steps; record it before the first one, and at the end with its count.

    Args:
        client: Redis.
        act: The act.
        steps: Does all of it; called again if Redis was away meanwhile, so that it has to go on
            from wherever it was interrupted.
        is_counted: The act says to how many it was done.

    Raises:
        RedisUnavailable: Redis was away for too long; the message says what to do.
    """
    name = insist(lambda: note_act(client, replace(act, outcome=BEGUN)))
    doing = Doing()

    def end(outcome: str) -> None:
        count = doing.count if is_counted else None
        note_act(client, replace(act, outcome=outcome, count=count, ends=name))

    try:
        result = insist(lambda: steps(doing), also=(LeaseLost,))
    except RedisUnavailable as error:
        if isinstance(error, SealedAnew):
            end(BROKEN_OFF)
            raise
        words = f"segrelay {act.what} {act.subject}".rstrip()
        # It stays as begun: keeping more would wait for Redis as long again.
        raise RedisUnavailable(
            f"{error.message} `{words}` is not finished. What is done stays done: give the"
            " same command again once Redis is back."
        ) from error
    except BaseException:
        with suppress(RedisUnavailable):
            end(BROKEN_OFF)
        raise
    insist(lambda: end(DONE))
    return result


def masked(text: str) -> str:
    """Return a text with its email addresses and telephone numbers masked."""
    return _ADDRESS.sub(_MASK, text)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
