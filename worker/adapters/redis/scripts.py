"""The Lua scripts of a worker, and asking Redis again until it has confirmed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from segrelay.worker.contract.redis.scripts import load_script, names_of_scripts, prepare
from segrelay.worker.core.gate import POLICY
from segrelay.worker.errors import RedisUnavailable

FOLDER: Final = Path(__file__).parent / "lua"
_POLICY: Final = re.compile(r"\bpolicy\.(\w+)")
"""The form of `policy.NAME` in a script, which a number of `POLICY` replaces."""


@cache
def source(name: str) -> str:
    """Return a script's text, with numbers in place of `policy.NAME`."""
    text = load_script(name, FOLDER)
    return _POLICY.sub(lambda found: str(getattr(POLICY, found[1])), text)


def load_all() -> None:
    """Read all scripts: a process that is forked afterwards has them before its first drain."""
    for name in names_of_scripts(FOLDER):
        prepare(source(name))


_Answer = TypeVar("_Answer")
_PAUSE_SECONDS: Final = 0.05
_PAUSE_SECONDS_AT_MOST: Final = 1.0


async def until_confirmed(
    ask: Callable[[], Awaitable[_Answer]], may_repeat: Callable[[], bool]
) -> _Answer:
    """Call `ask` again and again until Redis answers.

    Args:
        ask: A question or a write that may be repeated: called twice, it does what it does once.
        may_repeat: A function that says whether it should still be repeated.

    Raises:
        RedisUnavailable: It does not answer, and time is up.
    """
    pause_seconds = _PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except RedisUnavailable:
            if not may_repeat():
                raise
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_AT_MOST)
