"""The output of commands, and their questions: errors, JSON, lines, tables, progress.

Also files that commands read as JSON, and those with people's data, for their owner's eyes only.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import logging
import os
import shutil
import stat
import sys
import time
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TextIO

import orjson
import typer

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.terminal.tables import TableColumns, laid_out, wrapped
from segrelay.worker.contract.printable import LAYOUT, json_text, printable
from segrelay.worker.errors import SegrelayError, UsageWrong, WeMustAct

DEBUG_VARIABLE: Final = "SEGRELAY_DEBUG"
INTERRUPTED: Final = 130
"""The exit code after an interruption: 128 + SIGINT, as in shells."""

_PROGRESS_EVERY_SECONDS: Final = 5.0
_BOLD: Final = "\x1b[1m"
_RED: Final = "\x1b[31m"
_PLAIN: Final = "\x1b[0m"


_ESCAPES: Final = "segrelay.escapes"
_CLOSED_STREAMS: Final = (
    ("stdin", "r", os.O_RDONLY),  # is at its end
    ("stdout", "w", os.O_RDONLY),  # can't be written: who asked for facts has to know
    ("stderr", "w", os.O_WRONLY),  # drops messages
)
"""Substitutes for standard streams that are closed, as `>&-` of a shell does it."""


def run_guarded(app: Callable[[], Any]) -> NoReturn:
    """Run the command line and end the process with its exit code.

    Errors of ours, and broken templates, become one paragraph on stderr; `SEGRELAY_DEBUG=1` shows
    the traceback too.
    """
    _prepare_streams()
    try:
        app()
        code: int | str | None = 0
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1
    except SegrelayError as error:
        code = _report(error, error.message, error.exit_code)
    except TemplateBroken as error:
        code = _report(error, error.message, WeMustAct.exit_code)
    except OSError as error:
        code = _report(error, _os_message(error), 1) if is_all_written() else 1
    except Exception as error:  # noqa: BLE001 - this is the edge
        code = _report(error, _bug_message(error), 1)
    if not is_all_written():
        code = code or 1
    sys.exit(code)


def _prepare_streams() -> None:
    """Open the standard streams that are closed, and let no character of the output be an error.

    A closed one would be `None`, and the next connection that is opened would get its number.
    """
    for name, mode, flags in _CLOSED_STREAMS:
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)  # the lowest number that is free: its own
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the only form
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    codecs.register_error(_ESCAPES, _escape_as_json)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


def _escape_as_json(error: UnicodeError) -> tuple[str, int]:
    r"""Write characters that an encoding lacks as JSON does, such as `\u03a9`; JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def log_to_stderr() -> None:
    """Send warnings of our modules to stderr: stdout is for the command's result.

    Workers set up a log of their own.
    """
    import structlog  # noqa: PLC0415 - `--help` has to be quick

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _report(error: BaseException, message: str, exit_code: int) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}:
        with suppress(OSError):
            traceback.print_exception(error)
    mention(message)
    return exit_code


def _os_message(error: OSError) -> str:
    location = f"{error.filename}: " if error.filename else ""
    own = str(error) if type(error) is OSError else ""  # such as "AF_UNIX path too long"
    return f"{location}{error.strerror or own or type(error).__name__}"


def _bug_message(error: Exception) -> str:
    """Return the place of an error without its text, which may hold a profile's fields."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [frame for frame in frames if not frame.filename.startswith("<")][-1]
    return (
        f"This should not have happened: {type(error).__name__} at {last.filename}:{last.lineno}."
        f" Run the command again with {DEBUG_VARIABLE}=1 to see how it came to it."
    )


def is_all_written() -> bool:
    """Write what stdout and stderr still hold, and say whether stdout took it.

    A reader that has closed its pipe, as `| head` does, knows it; anything else is told.
    """
    error = _failure_of(sys.stdout)
    if error and not isinstance(error, BrokenPipeError):
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        mention(f"Standard output could not be written, and the result is lost: {reason}.")
    _failure_of(sys.stderr)
    return error is None


def _failure_of(stream: TextIO) -> OSError | None:
    """Flush a stream; return why that failed, and drop what it holds: Python would try it again."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


TAKEN: Final[ContextVar[list[Any] | None]] = ContextVar("taken", default=None)
"""The list that takes documents instead of stdout, where a command runs for a program here."""


def print_json(document: Any) -> None:
    """Print exactly one JSON document on stdout."""
    taken = TAKEN.get()
    if taken is None:
        sys.stdout.write(json_text(orjson.dumps(document, option=orjson.OPT_INDENT_2)) + "\n")
    else:
        taken.append(document)


def print_result(document: Any, *lines: str, as_json: bool) -> None:
    """Print the result of a command on stdout: as a JSON document, or as lines."""
    if as_json:
        print_json(document)
        return
    for line in lines:
        say(line)


def fields_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field; values that are not texts stand there as JSON."""
    for name, value in document.items():
        as_json = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        text = value if isinstance(value, str) else as_json
        yield f"{name}: {text}"


def json_or_text(text: Any) -> Any:
    """Return the value of a text that is JSON; anything else is returned as it is."""
    import orjson  # noqa: PLC0415 - `--help` has to be quick

    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        return text


def say(message: str, *, is_ill: bool = False) -> None:
    """Print a line of the command's result on stdout, in red if it is ill.

    On a terminal a long sentence is broken between words; what begins with a sign, and what has
    several lines, stays as it is laid out, as JSON and commands do.
    """
    text = printable(message, keep=LAYOUT)
    words = text.lstrip(" ")
    is_sentence = sys.stdout.isatty() and words[:1].isalnum() and "\n" not in text
    indent = " " * (len(text) - len(words))
    lines = wrapped(words, screen_width(), indent) if is_sentence else [text]
    _print_block(lines, _RED * is_ill)


def mention(message: str) -> None:
    """Print a line on stderr that is not part of the result; no work ends for want of a reader.

    On a terminal a long line is broken between words; what is indented stays as it is laid out.
    """
    text = printable(message, keep=LAYOUT)
    if sys.stderr.isatty():
        width = screen_width()
        lines = text.split("\n")
        text = "\n".join(
            line if line.startswith(" ") else "\n".join(wrapped(line, width)) for line in lines
        )
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def wants_colour() -> bool:
    """Say whether colours may be printed on stdout: it is a terminal, and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def table(
    columns: TableColumns, rows: Iterable[Sequence[object]], ill: Container[int] = ()
) -> None:
    """Print a table on stdout: fitted to a terminal, one line a row elsewhere.

    Args:
        columns: The columns, see `segrelay.ops.terminal.tables`.
        rows: The rows' cells; whole numbers get separators of thousands.
        ill: The indexes of the rows, from 0, that somebody has to look at; red where there are
            colours.
    """
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    header, *blocks = laid_out(columns, cells, screen_width() if sys.stdout.isatty() else None)
    _print_block(header, _BOLD)
    for number, block in enumerate(blocks):
        _print_block(block, _RED if number in ill else "")


def _cell(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def screen_width() -> int:
    """Return the width of the terminal in characters; 80 if it is not known."""
    return shutil.get_terminal_size().columns


def _print_block(lines: Iterable[str], style: str) -> None:
    styled = style and wants_colour()
    for line in lines:
        sys.stdout.write(f"{style}{line}{_PLAIN}\n" if styled else f"{line}\n")


Advance = Callable[..., None]
"""Counts units as done in a progress display: one, or the number that it is given."""


def _line_progress(label: str, total: int | None) -> Advance:
    """Show progress as plain lines on stderr, one every few seconds."""
    done, begun_at = 0, time.monotonic()
    next_at = begun_at + _PROGRESS_EVERY_SECONDS

    def advance(n: int = 1) -> None:
        nonlocal done, next_at
        done += n
        now = time.monotonic()
        if now < next_at:
            return
        next_at = now + _PROGRESS_EVERY_SECONDS
        # What is worked off may have grown since it was counted.
        most = 0 if total is None else max(total, done)
        told = f"{label}: {done:,}" + (f" of {most:,}" if most else "")
        rate = done / (now - begun_at)
        if rate >= 1:
            left = f", {(most - done) / rate:,.0f} s left" if most > done else ""
            told += f", {rate:,.0f} a second{left}"
        mention(told)

    return advance


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal that goes at the end, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _line_progress(label, total)
        return
    from rich.console import Console  # noqa: PLC0415 - `--help` has to be quick
    from rich.progress import Progress as Bars  # noqa: PLC0415 - see above

    with Bars(console=Console(stderr=True), transient=True) as bars:
        yield partial(bars.advance, bars.add_task(label, total=total))


def confirmed(question: str, *, yes: bool) -> None:
    """Ask the person at the terminal, unless `--yes` was given.

    Raises:
        Abort: The answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageWrong(f"{question} There is no terminal on which to ask; --yes agrees.")
    typer.confirm(question, abort=True, err=True)


_MODE: Final = 0o600


@contextmanager
def private_file(path: Path, *, must_be_new: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing with mode 0600, also if it exists with another mode.

    Raises:
        OSError: It can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if must_be_new else 0)
    try:
        descriptor = os.open(path, flags, _MODE)
    except FileExistsError:
        raise UsageWrong(f"{path}: is there already; name a new file.") from None
    with os.fdopen(descriptor, "wb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe or terminal stays as it is
            os.fchmod(descriptor, _MODE)
            file.truncate()
        yield file
