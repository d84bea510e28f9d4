"""`ProcessRenderer`: rendering for a drain, in this process under limits or in a throw-away one."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segrelay.jsonnet.isolated import DiedAt, render_isolated
from segrelay.jsonnet.rendered import (
    Engine,
    Killed,
    Rendered,
    Result,
    Row,
    Template,
    TemplateBroken,
)
from segrelay.jsonnet.renderer import Renderer

GROUP_SECONDS: Final = 10
"""Processor seconds for the rows of one call, after which the kernel ends the process.

One row takes half a millisecond, or 0.1 s if its compiled template does not end. The lease of a
process that hangs lapses sooner; this limit frees the process itself.
"""
GROUP_BYTES: Final = 2_000_000_000
"""The bytes by which a process may grow while it renders the rows of one call."""
ISOLATED_SECONDS: Final = 5.0
"""Processor seconds of one throw-away process, for all of its rows."""
ISOLATED_BYTES: Final = 1_000_000_000
"""Bytes of address space of a throw-away process; it starts with 256 MB."""
ISOLATED_AT_MOST_SECONDS: Final = 15.0
"""Seconds after which a call starts no further throw-away process: a drain's time is limited."""
KILLED_AT_MOST: Final = 3
"""The most rows of one call that may kill a process; each uses up the time limit twice."""

SAFE_SECONDS: Final = 0.2
"""Processor seconds after which `render_safely` breaks a row off."""

_OWN_SIZES: Final = Path("/proc/self/statm")
_DATA_AND_STACK: Final = 5
"""The column of `_OWN_SIZES` with data and stack, in pages."""


class _TookTooLongError(Exception):
    """A row took more processor time than it may."""


@dataclass(frozen=True, slots=True)
class ProcessRenderer:
    """The renderer of a drain.

    Args:
        is_told_to_stop: A function that says whether to give up rendering in a throw-away process.
        group_seconds: Processor time after which the kernel ends a process amid a call.
        group_bytes: The bytes by which the process may grow amid a call.
        isolated_seconds: Processor time of a throw-away process.
        isolated_bytes: The memory that a throw-away process may hold.
    """

    renderer: Renderer
    is_told_to_stop: Callable[[], bool] = lambda: False
    group_seconds: float = GROUP_SECONDS
    group_bytes: int = GROUP_BYTES
    isolated_seconds: float = ISOLATED_SECONDS
    isolated_bytes: int = ISOLATED_BYTES

    async def render(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, isolated: bool
    ) -> list[Result | Killed]:
        """Render rows of one template, which may be of several triggers, in order.

        Isolated rows are rendered in a throw-away process with limits. There may be fewer results
        than isolated rows; the other rows are left for another time.
        """
        if isolated:
            engine = "jsonnet" if self.renderer.doubts(template) else engine
            return await asyncio.to_thread(self._isolated, template, engine, list(rows))
        await asyncio.sleep(0)
        with _limited(self.group_seconds, self.group_bytes):
            return list(self.renderer.render(template, rows, engine))

    def render_safely(self, template: Template, engine: Engine, row: Row) -> Rendered | None:
        """Render a row with the compiled template, within a short time; None = it can't be."""
        try:
            with _limited(SAFE_SECONDS, self.group_bytes, _give_up):
                return self.renderer.render_safely(template, row, engine)
        except (_TookTooLongError, MemoryError, SystemError):
            # Deep in a recursion CPython may lose what a handler raised: SystemError.
            return None

    def _isolated(
        self, template: Template, engine: Engine, rows: list[Row]
    ) -> list[Result | Killed]:
        """Render rows in throw-away processes; a row that kills one even alone is `Killed`."""
        results: list[Result | Killed] = []
        killed = 0
        ends_at = time.monotonic() + ISOLATED_AT_MOST_SECONDS
        while len(results) < len(rows) and killed < KILLED_AT_MOST and time.monotonic() < ends_at:
            came_out = self._apart(template, engine, rows[len(results) :])
            if not isinstance(came_out, DiedAt):
                return results + list(came_out)
            results += came_out.results
            if came_out.by_others:
                return results
            alone = self._apart(template, engine, [rows[len(results)]])
            if not isinstance(alone, DiedAt):
                results += alone
            elif alone.by_others:
                return results
            else:
                killed += 1
                results.append(Killed())
        return results

    def _apart(self, template: Template, engine: Engine, rows: list[Row]) -> list[Result] | DiedAt:
        try:
            return render_isolated(
                self.renderer.bundle_of(template),
                rows,
                engine,
                seconds=self.isolated_seconds,
                memory_bytes=self.isolated_bytes,
                gives_up=self.is_told_to_stop,
            )
        except (OSError, TemplateBroken):
            # No process to be had, or one with another version of the engine.
            return DiedAt(0, "crash", (), by_others=True)


def limit_memory(more_bytes: int) -> tuple[int, int]:
    """Limit the growth of this process, in bytes; return the limits of `RLIMIT_DATA` before.

    A library may have reserved gigabytes, which count: within a limit below what is held, not even
    the frame of a call has room.
    """
    soft, hard = limits = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = (_held_bytes() + more_bytes, soft, hard)
    most = min(limit for limit in wanted if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return limits


def _held_bytes() -> int:
    """Return the size of this process as `RLIMIT_DATA` counts it: data and stack, in bytes."""
    try:
        sizes = _OWN_SIZES.read_bytes().split()
    except FileNotFoundError:  # not Linux: others do not hold to the limit
        return 0
    return int(sizes[_DATA_AND_STACK]) * resource.getpagesize()


def _give_up(*_: object) -> None:
    raise _TookTooLongError


@contextlib.contextmanager
def _limited(
    seconds: float,
    most_bytes: int,
    too_long: Callable[..., None] | signal.Handlers = signal.SIG_DFL,
) -> Iterator[None]:
    """Set limits of time and memory at which the kernel ends this process during rendering.

    Nothing else can: the engine holds the interpreter. Compiled templates do not, so a handler of
    the signal may give up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    limits = limit_memory(most_bytes)
    before = signal.signal(signal.SIGPROF, too_long)
    # It comes again: the interpreter drops what a handler raises amid the end of an object.
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_PROF, 0)
        finally:
            signal.signal(signal.SIGPROF, before)
            resource.setrlimit(resource.RLIMIT_DATA, limits)
