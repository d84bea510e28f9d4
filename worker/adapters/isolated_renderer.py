"""Renders in a throw-away process with limits, so that an event that kills can be found.

`python -m worker.adapters.isolated_renderer` reads a request from its standard input and writes
each result as soon as it has it: those that came out, and the one that did not, are known then.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from worker.adapters.renderer import (
    Asserted,
    Rendered,
    Renderer,
    Result,
    Row,
    TemplateFailed,
)
from worker.errors import TemplateBroken

_BROKEN_TEMPLATE: Final = 3
"""The exit status that says: the template does not load; why stands in the last line."""
_CPU_SPARE_SECONDS: Final = 1
"""The CPU limit only has to hold when the parent is gone and can't kill any more."""


@dataclass(frozen=True, slots=True)
class Killed:
    """The process ended before it had rendered every row.

    Args:
        row: Index of the row that it was at; alone to blame, if it dies there alone again.
        cause: `time` for the limit on seconds, `crash` for anything else (memory, a fault).
        results: Of the rows before.
    """

    row: int
    cause: Literal["time", "crash"]
    results: tuple[Result, ...]


def render_isolated(
    templates_folder: Path,
    template_name: str,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    *,
    seconds: float,
    memory_bytes: int,
) -> list[Result] | Killed:
    """Render like `Renderer.render`, in a process that may die of it.

    Args:
        templates_folder: The configured folder.
        template_name: Relative to the folder.
        rows: The events.
        settings: The trigger's settings.
        seconds: Wall-clock time for all rows.
        memory_bytes: Address space of the process; 256 MB are enough to begin with.

    Raises:
        TemplateBroken: The template does not load.
    """
    request = orjson.dumps(
        {
            "folder": str(templates_folder),
            "template": template_name,
            "rows": [base64.b64encode(row.profile).decode() for row in rows],
            "settings": dict(settings),
            "seconds": seconds,
            "memory_bytes": memory_bytes,
        }
    )
    lines, status, in_time = _run(request, seconds)
    if status == _BROKEN_TEMPLATE and lines:
        raise TemplateBroken(*json.loads(lines[-1]))
    results = [_decoded(line) for line in lines]
    if len(results) < len(rows):
        return Killed(len(results), "crash" if in_time else "time", tuple(results))
    return results


def _run(request: bytes, seconds: float) -> tuple[list[bytes], int, bool]:
    """Return the lines that came out whole, the exit status, and whether it ended in time."""
    command = [sys.executable, "-m", "worker.adapters.isolated_renderer"]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        in_time = True
        try:
            output, _ = child.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            in_time = False
            child.kill()
            output, _ = child.communicate()
    lines = [line for line in output.splitlines(keepends=True) if line.endswith(b"\n")]
    return lines, child.returncode, in_time


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
    cpu = math.ceil(seconds) + _CPU_SPARE_SECONDS
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(limit, (value, value))


def _render_all(request: dict[str, Any]) -> int:
    _limit(request["seconds"], request["memory_bytes"])
    renderer = Renderer(Path(request["folder"]))
    try:
        template = renderer.load(request["template"])
    except TemplateBroken as error:
        _write(list(error.args))
        return _BROKEN_TEMPLATE
    for row in request["rows"]:
        [result] = renderer.render(template, [Row(base64.b64decode(row))], request["settings"])
        _write(_encoded(result))
    return 0


def _write(line: list[Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(_render_all(json.load(sys.stdin)))
