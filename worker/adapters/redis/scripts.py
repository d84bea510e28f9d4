"""The Lua scripts, loaded once, called by their digest, and repeated until Redis has confirmed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from segrelay.worker.contract.redis.accept import ADD
from segrelay.worker.contract.redis.client import AsyncRedis, NoScriptError, Redis
from segrelay.worker.contract.redis.connection import require_confirmed, wait_commands
from segrelay.worker.contract.redis.lock import LOCK
from segrelay.worker.contract.redis.scripts import digest, run_script
from segrelay.worker.core.gate import POLICY
from segrelay.worker.errors import RedisUnavailable

FOLDER: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = "--@include "
_SHARED: Final = {"_add": ADD, "_lock": LOCK}
"""The parts of scripts that lie in another folder, by name."""
_POLICY: Final = re.compile(r"\bpolicy\.(\w+)")
"""The form of `policy.NAME` in a script, which a number of `POLICY` replaces."""


@cache
def source(name: str) -> str:
    """Return a script's text, with its parts, and with numbers in place of `policy.NAME`."""
    if name in _SHARED:
        return _SHARED[name]
    text = (FOLDER / f"{name}.lua").read_text("utf-8")
    return included(_POLICY.sub(lambda found: str(getattr(POLICY, found[1])), text))


def included(text: str) -> str:
    """Return a text with the lines `--@include part` replaced by that part of this folder."""
    lines = text.splitlines()
    return "\n".join(
        source(line.removeprefix(_INCLUDE)) if line.startswith(_INCLUDE) else line for line in lines
    )


async def call(
    client: AsyncRedis,
    name: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script of this folder; it is sent whole only where Redis does not know it."""
    return await call_text(client, source(name), keys, args)


async def call_replicated(
    client: AsyncRedis,
    text: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script given by its text, and wait for as many replicas as the client demands.

    Raises:
        NotReplicated: It was run, and too few replicas have confirmed it.
    """
    replicas = client.replicas
    if not replicas:
        return await call_text(client, text, keys, args)
    answer, *_, waited = await _with_wait(client, ("EVALSHA", digest(text)), keys, args, replicas)
    if isinstance(answer, NoScriptError):
        answer, *_, waited = await _with_wait(client, ("EVAL", text), keys, args, replicas)
    if isinstance(answer, Exception):
        raise answer
    require_confirmed(waited, replicas)
    return answer


async def _with_wait(
    client: AsyncRedis,
    named: tuple[str, str],
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
    replicas: int,
) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for words in ((*named, len(keys), *keys, *args), *wait_commands(replicas)):
            pipe.execute_command(*words)
        return await pipe.execute(raise_on_error=False)


async def call_each(
    client: AsyncRedis,
    name: str,
    keys: Sequence[str | bytes],
    calls: Sequence[Sequence[str | bytes | int | float]],
) -> list[Any]:
    """Run a script of this folder once for each list of arguments, in one round trip."""
    if not calls:
        return []
    text = source(name)
    async with client.pipeline(transaction=False) as pipe:
        for at, args in enumerate(calls):
            # The first one goes whole, so that the server knows the script when the others come.
            named = ("EVALSHA", digest(text)) if at else ("EVAL", text)
            pipe.execute_command(*named, len(keys), *keys, *args)
        return list(await pipe.execute())


async def call_text(
    client: AsyncRedis,
    text: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script given by its text."""
    try:
        return await command(client, "EVALSHA", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return await command(client, "EVAL", text, len(keys), *keys, *args)


def call_sync(
    client: Redis,
    name: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script of this folder from a thread or a command."""
    return run_script(client, source(name), keys, args)


async def command(client: AsyncRedis, *words: str | bytes | float) -> Any:
    """Run one command, and return its answer as the client library parses it."""
    return await client.execute_command(*words)


async def pairs(client: AsyncRedis, key: str) -> list[tuple[bytes, bytes]]:
    """Return the fields and values of a hash, in whichever form the client library has them."""
    answer = await command(client, "HGETALL", key)
    if isinstance(answer, dict):
        return list(answer.items())
    return list(zip(answer[::2], answer[1::2], strict=True))


_Answer = TypeVar("_Answer")
_PAUSE_SECONDS: Final = 0.05
_PAUSE_SECONDS_AT_MOST: Final = 1.0


async def until_confirmed(
    ask: Callable[[], Awaitable[_Answer]], may_repeat: Callable[[], bool]
) -> _Answer:
    """Call `ask` again and again until Redis answers.

    Args:
        ask: Does the same however often it is called.
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
