"""Evaluation of a template's untouched files by any engine, one event at a time.

It says what the template means, whatever our batches do with it: `template check` compares, and an
error without a position is looked up here. It runs in a process of its own, because the reference
implementation aborts on a number like 1e999, and `gojsonnet` must not be imported where one forks.
Which judges there are depends on the machine: `jsonnet` has no wheel for Linux on ARM.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal

from segrelay.jsonnet.engines import failures as jsonnet_errors
from segrelay.jsonnet.engines import judging
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.rows_evaluator import (
    REFERENCE_LACKS,
    REFERENCE_STD,
    RJSONNET_LACKS,
    RJSONNET_STD,
    TEMPLATES_STD,
    checked,
    untouched,
)
from segrelay.jsonnet.files import Bundle, resolutions


def own_command(name: str) -> list[str]:
    """Return the command line that runs a module of the engine with this Python.

    `-P` keeps the current folder out of Python's search path: another folder named `worker` there
    would be executed in the place of ours.
    """
    return [sys.executable, "-P", "-m", name]


EngineModule = Literal["rjsonnet", "jsonnet", "gojsonnet"]
_MODULES: Final[Mapping[str, str]] = {
    "rjsonnet": "rjsonnet",
    "jsonnet": "_jsonnet",
    "gojsonnet": "_gojsonnet",
}
_STD: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "rjsonnet": (RJSONNET_STD, RJSONNET_LACKS),
    "jsonnet": (REFERENCE_STD, REFERENCE_LACKS),
    "gojsonnet": (TEMPLATES_STD, frozenset()),
}


_WAITS: Final = 5
"""The longest wait for a judge, as a multiple of its processor time: a machine may be busy."""


@cache
def judges() -> tuple[EngineModule, ...]:
    """Return the installed engines other than `rjsonnet`, the reference implementation first."""
    engines: tuple[EngineModule, ...] = ("jsonnet", "gojsonnet")
    return tuple(engine for engine in engines if find_spec(_MODULES[engine]))


def judge(
    engine: EngineModule,
    bundle: Bundle,
    profiles: Sequence[bytes],
    settings: bytes,
    *,
    seconds: float = 10.0,
) -> list[str | Failure | None]:
    """Evaluate a template for profiles; return JSON text, a failure or None for each.

    None means that nobody can tell: the engine is not installed, or died of this event or an
    earlier one.

    Args:
        engine: The engine that is asked.
        bundle: The template with its imports.
        profiles: The profiles, as JSON texts.
        settings: The settings, as the JSON text of an object.
        seconds: The processor time for all profiles, and a fifth of the longest wait; of those that
            are not done by then, the answer is None.
    """
    std_file, lacks = _STD[engine]
    plain = untouched(bundle, std_file, lacks)
    request = {
        "module": _MODULES[engine],
        "root": plain.root,
        "sources": {**bundle.library.inner_sources, **plain.sources},
        "resolve": resolutions(bundle),
        "profiles": [profile.decode(errors="replace") for profile in profiles],
        "settings": settings.decode(),
        "seconds": seconds,
    }
    answers = [_read(line, plain.headed) for line in _ask(pickle.dumps(request), _WAITS * seconds)]
    return [*answers, *[None] * (len(profiles) - len(answers))]


def _ask(request: bytes, seconds: float) -> list[bytes]:
    command = own_command(judging.__name__)
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            output, _ = child.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            output, _ = child.communicate()
    return [line for line in output.splitlines(keepends=True) if line.endswith(b"\n")]


def _read(line: bytes, headed: frozenset[str]) -> str | Failure:
    said = json.loads(line)
    return checked(said["value"] if "value" in said else jsonnet_errors.read(said["error"], headed))
