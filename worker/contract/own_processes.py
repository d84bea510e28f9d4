"""Our own processes: their command lines and processors, how their threads take turns, and ids.

A module is loaded when something of it is used first, so that a command starts without the rest.
Types and the rules about imports need the usual statement beside it:

    if TYPE_CHECKING:
        import httpx
    else:
        httpx = deferred("httpx")
"""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import Iterator
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any, Final


def own_module(name: str, *arguments: str) -> list[str]:
    """Return the command line that runs one of our modules, by this very interpreter.

    `-P` keeps the current folder out of Python's search path: a folder `worker`, `ops` or
    `producer` of somebody else would be executed in the place of ours.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, at least one.

    That is what it may run on, and no more than its container's share of time (control groups of
    version 2); of a share of one and a half, two.
    """
    return max(1, min([_may_run_on(), *map(ceil, _shares(root))]))


def _may_run_on() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return int(os.process_cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shares(root: Path) -> Iterator[float]:
    """Yield the number of processors that this process' control group and those above it allow."""
    mount = root / "sys/fs/cgroup"
    _, _, group = _text(root / "proc/self/cgroup").partition("0::")
    below = Path(group.strip("/\n"))
    for folder in (mount, *(mount / above for above in (below, *below.parents))):
        match _text(folder / "cpu.max").split():
            case [quota, period] if quota != "max":
                yield int(quota) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


_SWITCHED_SECONDS: Final = 0.000_5


def switch_threads_often() -> None:
    """Switch to another thread after 0.5 ms of computing, instead of Python's 5 ms.

    For a thread that answers, hands out work or writes, beside one that computes: it would wait for
    those 5 ms wherever it needs the interpreter.
    """
    sys.setswitchinterval(_SWITCHED_SECONDS)


_RANDOM: Final = random.Random(secrets.token_bytes(32))  # noqa: S311 - ids need not be secret
os.register_at_fork(after_in_child=_RANDOM.seed)


def random_bits(count: int) -> int:
    """Return bits for an id that no other process draws, and that need not be secret.

    Asking the system for each would let the other threads of the process go first.
    """
    return _RANDOM.getrandbits(count)


def deferred(name: str) -> Any:
    """Return a stand-in for a module, which imports it for the first attribute that is read."""
    return _Deferred(name)


class _Deferred:
    """Stands for a module; an attribute that was read once is found without a detour."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
