"""Rendering in a throw-away process with limits, to find an event that kills the process.

`python -m segrelay.jsonnet.isolated` reads a request from its standard input, says when it is
ready, and writes each result as soon as it has it: so the results before a crash are kept, and the
event that it was rendering then is known. Time is the processor's: neither a stop nor a busy
machine is a template's fault, and nor is a signal that somebody else sent.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO, RawIOBase
from typing import Any, Final, Literal

from segrelay.jsonnet.engines.judge import own_command
from segrelay.jsonnet.files import Bundle, shown
from segrelay.jsonnet.rendered import (
    Asserted,
    Engine,
    Rendered,
    Result,
    Row,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import Renderer

_BROKEN_TEMPLATE: Final = 3
"""The exit status when the template does not load; the last line of output holds the reason."""
_READY: Final = b'"ready"\n'
"""The line before the first result. If it is missing, no row is to blame for the end."""
_CPU_SPARE_SECONDS: Final = 1
"""The seconds between SIGXCPU, when the time is up, and SIGKILL, which cannot be ignored."""
_WALL_FACTOR: Final = 4
"""The elapsed time that a process may take, as a multiple of its processor time.

On a busy machine it gets only a part of a processor; after this it is ended.
"""
_LOOK_SECONDS: Final = 0.2
_FROM_OUTSIDE: Final = frozenset(
    {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
)
"""Signals by which people, supervisors or a machine short of memory end a process."""


@dataclass(frozen=True, slots=True)
class DiedAt:
    """The process ended before it had rendered every row.

    Args:
        row: The index of the row that was being rendered, which is to blame if the process dies of
            it alone.
        cause: `time` for the limit on seconds, `crash` for anything else (memory, a fault).
        results: The results of the rows before that one.
        by_others: True if the process could not begin, was ended from outside, or got no processor:
            its row may be fine.
    """

    row: int
    cause: Literal["time", "crash"]
    results: tuple[Result, ...]
    by_others: bool = False


def render_isolated(
    bundle: Bundle,
    rows: Sequence[Row],
    engine: Engine = "auto",
    *,
    seconds: float,
    memory_bytes: int,
    gives_up: Callable[[], bool] = lambda: False,
) -> list[Result] | DiedAt:
    """Render events like `Renderer.render`, but in a process of its own with limits.

    Args:
        bundle: The template, as it was when it was read.
        rows: The events.
        engine: The engine, see `Renderer.render`.
        seconds: The processor time for all rows, rounded up to whole seconds.
        memory_bytes: The address space of the process, which takes 256 MB to begin with.
        gives_up: A function that says whether to end the process, which then counts as ended by
            others.

    Raises:
        TemplateBroken: The engine does not parse the template.
    """
    plain = [row._replace(settings=dict(row.settings)) for row in rows]
    request = pickle.dumps((bundle, plain, engine, (seconds, memory_bytes)))
    lines, status = _run(request, _WALL_FACTOR * math.ceil(seconds), gives_up)
    if status == _BROKEN_TEMPLATE and lines:
        raise TemplateBroken(*json.loads(lines[-1]))
    results = [_decoded(line) for line in lines[1:]]
    if len(results) == len(rows):
        return results
    by_others = lines[:1] != [_READY] or -status in _FROM_OUTSIDE
    cause: Literal["time", "crash"] = "time" if status == -signal.SIGXCPU else "crash"
    return DiedAt(len(results), cause, tuple(results), by_others)


def _run(request: bytes, seconds: float, gives_up: Callable[[], bool]) -> tuple[list[bytes], int]:
    """Run the process; return its complete lines and its exit status (negative for a signal)."""
    command = own_command(__name__)
    ends_at = time.monotonic() + seconds
    with (
        subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child,
        _ended_once(child, lambda: gives_up() or time.monotonic() > ends_at),
    ):
        output = child.communicate(request)[0]
    lines = [line for line in output.splitlines(keepends=True) if line.endswith(b"\n")]
    return lines, child.returncode


@contextlib.contextmanager
def _ended_once(child: subprocess.Popen[bytes], gives_up: Callable[[], bool]) -> Iterator[None]:
    """End a process when `gives_up` says so, and when the block is left.

    This thread can't ask meanwhile: a `communicate` that is called again after its time was over
    no longer writes what is left of the input.
    """
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if gives_up():
                child.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        child.kill()


def _encoded(result: Result) -> list[Any]:
    match result:
        case Rendered(body):
            return ["rendered", base64.b64encode(body).decode()]
        case Asserted(message):
            return ["asserted", message]
        case TemplateFailed(message, file, line):
            return ["failed", message, file, line]


def _decoded(line: bytes) -> Result:
    kind, *values = json.loads(line)
    match kind:
        case "rendered":
            return Rendered(base64.b64decode(values[0]))
        case "asserted":
            return Asserted(*values)
        case _:
            return TemplateFailed(*values)


def _limit(seconds: float, memory_bytes: int) -> None:
    cpu = math.ceil(seconds)
    limits = {
        resource.RLIMIT_CPU: (cpu, cpu + _CPU_SPARE_SECONDS),
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_CORE: (0, 0),
    }
    for limit, values in limits.items():
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(limit, values)


def _render_all(
    results: RawIOBase,
    bundle: Bundle,
    rows: Sequence[Row],
    engine: Engine,
    limits: tuple[float, int],
) -> int:
    """Render rows within limits of seconds and bytes; answers are JSON, whatever a template did."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own waits for the engine to return
    _limit(*limits)
    renderer = Renderer(bundle.library.folder, bundle.library)
    try:
        template = renderer.take_in(shown(bundle.root), bundle)
    except TemplateBroken as error:
        results.write(json.dumps(error.args).encode() + b"\n")
        return _BROKEN_TEMPLATE
    results.write(_READY)
    for row in rows:
        [result] = renderer.render(template, [row], engine)
        results.write(json.dumps(_encoded(result)).encode() + b"\n")
    return 0


if __name__ == "__main__":
    # Bytes, as everywhere between processes: a stream of text has the encoding of the locale.
    output = FileIO(os.dup(1), "w")
    os.dup2(2, 1)  # whoever writes a line of a log writes it elsewhere
    sys.exit(_render_all(output, *pickle.load(sys.stdin.buffer)))  # noqa: S301 - from our parent
