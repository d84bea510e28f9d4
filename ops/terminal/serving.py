"""Commands that run until they are stopped: the log's form, the address, Ctrl-C and SIGTERM.

Whatever ends them, everything that was started ends in order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer

from segrelay.worker import logs
from segrelay.worker.contract.settings.sections import ListeningSettings
from segrelay.worker.errors import UsageWrong

_Listening = TypeVar("_Listening", bound=ListeningSettings)


class LogFormatName(StrEnum):
    """The values of `--log-format`."""

    JSON = logs.JSON
    TEXT = logs.TEXT


LogFormat = Annotated[
    LogFormatName | None,
    typer.Option(
        "--log-format",
        help="The form of the log; by default, text in a terminal and JSON elsewhere.",
    ),
]


def use_log_format(chosen: LogFormatName | None) -> None:
    """Use a log format in this process and its children."""
    if chosen is not None:
        os.environ[logs.FORMAT_VARIABLE] = chosen.value


def listening_at(section: _Listening, address: str) -> _Listening:
    """Return a section of the configuration with another address to listen at; "" = unchanged."""
    if not address:
        return section
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageWrong(f"--listen {address}: write HOST:PORT, e.g. {section.listen}.")
    return section.model_copy(update={"listen": address})


PARENT_VARIABLE: Final = "SEGRELAY_ENDS_WITH_STDIN"
"""The variable that makes a process end with its parent: its standard input is a pipe that
only the parent holds open."""
_PIPE_BYTES: Final = 1_024
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Raise at the first Ctrl-C or SIGTERM, and ignore further ones during the cleanup.

    Only in the main thread.
    """
    with _handled_by(_unwind):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def end_with_parent() -> None:
    """End this process in good order when its parent has ended, if the parent asked for that."""
    if os.environ.pop(PARENT_VARIABLE, "") == "1":
        threading.Thread(target=_wait_for_the_end, args=(sys.stdin.fileno(),), daemon=True).start()


def _wait_for_the_end(descriptor: int) -> None:
    while os.read(descriptor, _PIPE_BYTES):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _unwind(number: int, _frame: Any) -> NoReturn:
    for each in _NUMBERS:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


class Interruption:
    """A request to end, by Ctrl-C, or by SIGTERM as `kill` and containers send it."""

    def __init__(self) -> None:
        self._number = 0

    @property
    def is_requested(self) -> bool:
        return bool(self._number)

    def obey(self) -> None:
        if self._number:
            _unwind(self._number, None)

    def record(self, number: int, frame: Any) -> None:
        """Record the first Ctrl-C or SIGTERM, and raise at the second."""
        if self._number:
            _unwind(number, frame)
        self._number = number


@contextmanager
def interruptible_between_steps() -> Iterator[Interruption]:
    """Record the first Ctrl-C or SIGTERM for a check between two steps, and raise at the second.

    Only the main thread is interrupted.
    """
    interruption = Interruption()
    is_main = threading.current_thread() is threading.main_thread()
    with _handled_by(interruption.record) if is_main else nullcontext():
        yield interruption
