"""Runs our own commands as children: a prefix each, restarted if they die, ended in order.

Children have process groups of their own: Ctrl-C reaches only us, and we end them one by one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final, Self

from ops.terminal.interrupts import PARENT_VARIABLE
from worker.contract.own_processes import own_module

RESTARTS: Final = 5
RESTART_WINDOW_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
WRONGLY_CALLED: Final = 2
"""The exit code of a command that was called or configured wrongly."""
_LOOK_SECONDS: Final = 0.2

Print = Callable[[str, str], None]
"""A callback that takes a child's name and a line of its output."""


def own_command(*arguments: str) -> list[str]:
    """Return the command line of one of our commands, run by this very interpreter."""
    return own_module("ops.main", *arguments)


@dataclass(slots=True)
class Child:
    """A child process that is started again if it dies."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    print_line: Print
    process: subprocess.Popen[str] | None = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the process, and print its output line by line."""
        self.starts.append(time.monotonic())
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.process = subprocess.Popen(
            self.command,
            env={
                **os.environ,
                **self.environment,
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                PARENT_VARIABLE: "1",
            },
            stdin=subprocess.PIPE,  # held open, and never written to: it ends when we do
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            process_group=0,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        threading.Thread(target=self._pump, args=(self.process.stdout,), daemon=True).start()

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            self.print_line(self.name, line.rstrip("\n"))

    def died(self) -> int | None:
        """Return the child's exit code if it has ended, else None."""
        return self.process.poll() if self.process else None

    def may_restart(self) -> bool:
        """Say whether the child died rarely enough to be started again."""
        since = time.monotonic() - RESTART_WINDOW_SECONDS
        self.starts = [at for at in self.starts if at > since]
        return len(self.starts) <= RESTARTS

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask the child to end; kill its whole process group if it has not ended in time."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Supervisor:
    """Runs children until told to stop, or until one dies for good.

    Args:
        print_line: Prints a line of a child.
    """

    def __init__(self, print_line: Print) -> None:
        self._print = print_line
        self._children: list[Child] = []
        self._stop = threading.Event()

    def listen(self) -> None:
        """Handle Ctrl-C and SIGTERM from now on; `run` also obeys a signal that came before it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())

    def __enter__(self) -> Self:
        """Handle Ctrl-C and SIGTERM from now on."""
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """End the children, the last one first."""
        for child in reversed(self._children):
            child.stop()

    def start(self, name: str, command: Sequence[str], **environment: str) -> Child:
        """Start a command as a child that is restarted if it dies."""
        child = Child(name, command, environment, self._tell)
        self._children.append(child)
        child.start()
        return child

    def _tell(self, name: str, line: str) -> None:
        """Print a line of a child; end everything in order if the output's reader has gone."""
        try:
            self._print(name, line)
        except OSError:
            self._stop.set()

    def run(self, look: Callable[[], None]) -> int:
        """Wait; return 0 if told to stop, 1 if a child died for good, 2 if one was called wrongly.

        Args:
            look: Called all the time, e.g. to look after what is no child.
        """
        while not self._stop.wait(_LOOK_SECONDS):
            look()
            for child in self._children:
                code = child.died()
                if code is None:
                    continue
                if code == WRONGLY_CALLED:
                    self._print(child.name, "can't work like that; it is not started again")
                    return code
                if not child.may_restart():
                    self._print(child.name, f"ended with {code} again and again; giving up")
                    return 1
                self._print(child.name, f"ended with {code}; starting it again")
                self._stop.wait(min(2.0 ** len(child.starts) / 4, 5.0))
                if not self._stop.is_set():
                    child.start()
        return 0
