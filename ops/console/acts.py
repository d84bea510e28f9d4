"""The acts of the console: each is one of our commands, run as a process of its own.

So a button does what the command does, with its own refusals, its own record in the audit, and its
own progress, and the command that a page shows to copy is the one that runs. Whether a person may
act is decided here, where the process is started, whatever page the request came from.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from tempfile import TemporaryFile
from typing import IO, Any, Final

import orjson

from segrelay.ops.console.rights import Person
from segrelay.ops.main import COMMANDS, COMPLETED
from segrelay.ops.state.opened import ACTOR_VARIABLE
from segrelay.ops.terminal.frame import load
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.errors import OperationsMustAct, UsageWrong

Values = Mapping[str, Sequence[str]]
"""The values of a form's fields by their names."""

_PROGRAM: Final = "segrelay"
_DRY_RUN: Final = "--dry-run"


@dataclass(frozen=True, slots=True)
class ConsoleAct:
    """A command that a button of the console runs, or a tool of an assistant.

    What a form can give besides the arguments are the options of the command itself.

    Args:
        command: The words of its command behind `segrelay`.
        title: The sentence on the page that asks.
        arguments: The fields of the form that are its arguments, in order; `ids` may be several.
        bound: The options without which nothing is done: they say what the person has seen.
        flags: The options that are always given, because nobody waits at a terminal.
        is_destructive: True if it can't be undone, so that the person types how many it will be.
    """

    command: str
    title: str = ""
    arguments: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    is_destructive: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the options that choose, which are fields of the form."""
        return tuple(
            name
            for name, one in parameters_of(self).items()
            if name not in (*self.arguments, *self.bound, *_NO_FIELDS) and not one.is_flag
        )

    @property
    def has_dry_run(self) -> bool:
        """Say whether the command has a dry run, and options that choose what it takes."""
        return bool(self.options) and "dry-run" in parameters_of(self)

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the form's fields."""
        return self.arguments + self.options + self.bound

    @property
    def needed(self) -> list[str]:
        """Return the names of the fields without which nothing is done."""
        return [name for name in (*self.arguments, *self.bound) if name != "ids"]

    def values(self, given: Values) -> dict[str, list[str]]:
        """Return the values that the act has fields for.

        Raises:
            UsageWrong: One that is needed is missing, or one is not known: without it the act
                would take more than was meant.
        """
        unknown = sorted(given.keys() - {*self.fields, *_OF_THE_FORM})
        if unknown:
            raise UsageWrong(f"`{_PROGRAM} {self.command}` knows no {', '.join(unknown)}.")
        found = {name: [text.strip() for text in given.get(name, ())] for name in self.fields}
        found = {name: kept for name, texts in found.items() if (kept := [*filter(None, texts)])}
        missing = [name for name in self.needed if name not in found]
        if missing:
            raise UsageWrong(f"`{_PROGRAM} {self.command}` needs {' and '.join(missing)}.")
        return found

    def limit(self, count: int | None) -> list[str]:
        """Return the option by which the command takes no more than a person has agreed to."""
        return [f"--at-most={count}"] if self.is_destructive and count is not None else []

    def words(self, values: Values, *options: str) -> list[str]:
        """Return the words of the command line, with further options behind the command's name.

        A value can't be taken for an option: an option's stands behind `=`, arguments behind `--`.
        """
        words = [*self.command.split(), *options]
        if self.has_dry_run and not values:
            words.append("--all")
        for name in (*self.options, *self.bound):
            words += (f"--{name}={text}" for text in values.get(name, ()))
        arguments = [text for name in self.arguments for text in values.get(name, ())]
        if any(text.startswith("-") for text in arguments):
            words.append("--")
        return words + arguments


_OF_THE_FORM: Final = frozenset(
    {"act", "back", "chosen", "why", "once", "tried", "count", "dry_run", "all", "at_most"}
)
"""Names that a form or an assistant gives beside the fields of its act."""
_NO_FIELDS: Final = frozenset({"why", "at-most", "timeout", "config"})
"""Options that no form has a field for: they are given otherwise, or would put a person's address
into the address of a page."""


def command_of(act: ConsoleAct) -> Any:
    """Return the command of an act, as the command line has it."""
    name, _, rest = act.command.partition(" ")
    command = load(name, COMMANDS[name], COMPLETED)
    return command.commands[rest] if rest else command


@cache
def parameters_of(act: ConsoleAct) -> Mapping[str, Any]:
    """Return the parameters of an act's command, by the names that forms have for them."""
    found = command_of(act).params
    arguments = [one for one in found if one.param_type_name == "argument"]
    options = {one.opts[0].removeprefix("--"): one for one in found if one not in arguments}
    return dict(zip(act.arguments, arguments, strict=False)) | options


ACTS: Final[Mapping[str, ConsoleAct]] = {
    one.command: one
    for one in (
        ConsoleAct("pause", "Stop sending", ("name",)),
        ConsoleAct("resume", "Resume", ("name",)),
        ConsoleAct("dlq replay", "Replay dead letters", ("ids",)),
        ConsoleAct("dlq discard", "Discard dead letters for good", ("ids",), is_destructive=True),
        ConsoleAct("quarantine replay", "Place quarantined events again", ("ids",)),
        ConsoleAct(
            "quarantine discard",
            "Discard quarantined events for good",
            ("ids",),
            is_destructive=True,
        ),
        ConsoleAct("discard", "Take back what waits, for good", is_destructive=True),
        ConsoleAct("backfill pause", "Pause a job", ("job",)),
        ConsoleAct("backfill resume", "Go on with a job", ("job",)),
        ConsoleAct(
            "backfill abort",
            "End a job, and discard what waits of it",
            ("job",),
            is_destructive=True,
        ),
        ConsoleAct("sync run", "Run a sync now", ("sync",)),
        ConsoleAct(
            "sync confirm",
            "Confirm that members have left",
            ("sync",),
            bound=("run",),
            is_destructive=True,
        ),
        ConsoleAct("redis acknowledge", "Acknowledge that Redis came back empty"),
    )
}


def act_named(command: str) -> ConsoleAct:
    """Return an act by its command.

    Raises:
        UsageWrong: There is none.
    """
    found = ACTS.get(command)
    if found is None:
        raise UsageWrong("There is no such act.")
    return found


def act_in(text: str) -> tuple[ConsoleAct, dict[str, str]] | None:
    """Return the act and the fields that a command means, as problems name one; None = no act.

    A text with words in place of values means none.
    """
    words = text.split()
    for act in ACTS.values():
        begin = [_PROGRAM, *act.command.split()]
        rest = words[len(begin) :]
        is_this = words[: len(begin)] == begin and len(rest) == len(act.arguments)
        if is_this and not any(word.isupper() or word.startswith("-") for word in rest):
            return act, dict(zip(act.arguments, rest, strict=True))
    return None


def command_line(act: ConsoleAct, values: Values, at_most: int | None = None) -> str:
    """Return the command that does the same, to be copied into a terminal."""
    return shlex.join([_PROGRAM, *act.words(values, *act.limit(at_most))])


_MOST_KEPT: Final = 100
_MOST_LINES: Final = 200
_MOST_OUTPUT: Final = 64_000_000
_MOST_ROWS: Final = 100
_MOST_AT_ONCE: Final = 4
"""The most dry runs, one a person, and the most acts at once: no dry run keeps an act waiting."""
_END_SECONDS: Final = 10.0


@dataclass(slots=True)
class StartedCommand:
    """A process of a command that a page started, with its output.

    Args:
        key: The name of its page.
        once: The number of the form: one that is sent twice starts one command.
        is_dry_run: True if it changes nothing.
        at_most: The number that the person has typed; None = the act asks for none.
        code: The exit code; None = the command has not ended.
        lines: The last lines that it has written to stderr.
        document: The JSON document that it printed, with the first rows only.
    """

    key: str
    once: str
    act: ConsoleAct
    values: Values
    by: str
    is_dry_run: bool
    at_most: int | None = None
    began_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    code: int | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    document: Any = None
    process: subprocess.Popen[str] | None = None

    @property
    def is_over(self) -> bool:
        return self.code is not None

    @property
    def command(self) -> str:
        """Return the command as a person would give it."""
        end = f" {_DRY_RUN}" if self.is_dry_run else ""
        return command_line(self.act, self.values, self.at_most) + end


class StartedCommands:
    """Starts commands for people who may act, and remembers the last of them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, StartedCommand] = OrderedDict()
        self._lock = threading.Lock()
        self._has_ended = False

    def find(self, key: str) -> StartedCommand | None:
        """Return a started command by its key."""
        return self._known.get(key)

    def latest(self) -> list[StartedCommand]:
        """Return the acts that were started here lately, the newest first."""
        return [one for one in list(self._known.values())[::-1] if not one.is_dry_run]

    def changed_at(self) -> float:
        """Return the time at which the last act that was started here ended; 0 = none has."""
        return max((one.ended_at for one in self.latest() if one.is_over), default=0.0)

    def start(
        self,
        person: Person,
        act: ConsoleAct,
        values: Values,
        *,
        reason: str = "",
        once: str = "",
        is_dry_run: bool = False,
        at_most: int | None = None,
    ) -> StartedCommand:
        """Start a command in the name of a person.

        Raises:
            UsageWrong: The person may not act, says no reason, or no number where one is needed.
            OperationsMustAct: Too many commands are under way, or a dry run of this person is.
        """
        if not person.acts and not (is_dry_run and person.name):
            raise UsageWrong("You may look, but not act: the role operator is needed.")
        if is_dry_run and not act.has_dry_run:
            raise UsageWrong("This command has no dry run.")
        if not is_dry_run and not reason.strip():
            raise UsageWrong("Give a reason: the audit keeps it.")
        if not is_dry_run and act.is_destructive and at_most is None:
            raise UsageWrong("Say how many it will be (`at_most`). Nothing was done.")
        with self._lock:
            for one in self._known.values():
                if once and one.once == once and one.by == person.name:
                    return one
            running = [one for one in self._known.values() if not one.is_over]
            alike = [one for one in running if one.is_dry_run == is_dry_run]
            own = [one.command for one in alike if is_dry_run and one.by == person.name]
            if own:
                raise OperationsMustAct(f"Your dry run is under way: `{own[0]}`. Wait for its end.")
            if self._has_ended or len(alike) >= _MOST_AT_ONCE:
                raise OperationsMustAct("Several commands are under way here: wait for one to end.")
            key = secrets.token_urlsafe(12)
            started = StartedCommand(key, once, act, values, person.name, is_dry_run, at_most)
            self._known[key] = started
            over = [name for name, one in self._known.items() if one.is_over]
            for name in over[: max(0, len(self._known) - _MOST_KEPT)]:
                del self._known[name]
            self._run(started, reason.strip())
        return started

    def _run(self, started: StartedCommand, reason: str) -> None:
        act, options = started.act, [_DRY_RUN]
        if not started.is_dry_run:
            agreed = ["--yes"] if "yes" in parameters_of(act) else []
            options = [f"--why={reason}", *act.limit(started.at_most), *agreed, *act.flags]
        output = TemporaryFile()  # noqa: SIM115 - closed by whoever follows
        started.process = process = subprocess.Popen(
            own_module("segrelay.ops.entry"),
            env={**os.environ, ACTOR_VARIABLE: started.by, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            process_group=0,
        )
        assert process.stdin
        with process.stdin, suppress(BrokenPipeError):  # its exit code tells
            process.stdin.write(json.dumps(act.words(started.values, *options, "--json")))
        threading.Thread(target=_follow, args=(started, process, output), daemon=True).start()

    def end(self) -> None:
        """Start no more commands, interrupt those that run, and wait for their end."""
        with self._lock:
            self._has_ended = True
            under_way = [
                one.process for one in self._known.values() if one.process and not one.is_over
            ]
        for process in under_way:
            process.send_signal(signal.SIGINT)
        ends_at = time.monotonic() + _END_SECONDS
        for process in under_way:
            try:
                process.wait(max(0.1, ends_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _follow(started: StartedCommand, process: subprocess.Popen[str], output: IO[bytes]) -> None:
    """Collect a command's messages until it ends, then its document and its exit code."""
    assert process.stderr
    with process, output:
        started.lines.extend(line.rstrip("\n") for line in process.stderr)
        code = process.wait()
        output.seek(0)
        started.document = _first_rows(output.read(_MOST_OUTPUT))
    started.ended_at = time.time()
    started.code = code


def _first_rows(text: bytes) -> Any:
    """Return a JSON document whose lists are cut; None if the text is none, or half of one."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    return {k: v[:_MOST_ROWS] if isinstance(v, list) else v for k, v in found.items()}
