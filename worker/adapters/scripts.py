"""The Lua scripts, loaded once, called by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.exceptions import NoScriptError

FOLDER: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = "--@include "


@cache
def source(name: str) -> str:
    """Return a script's text, with the lines `--@include part` replaced by that part."""
    lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    return "\n".join(
        source(line.removeprefix(_INCLUDE)) if line.startswith(_INCLUDE) else line for line in lines
    )


@cache
def digest(text: str) -> str:
    """Return the digest by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def call(
    client: redis.asyncio.Redis,
    name: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script of this folder; it is sent whole only where Redis does not know it."""
    return await call_text(client, source(name), keys, args)


async def call_text(
    client: redis.asyncio.Redis,
    text: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script given by its text."""
    try:
        return await client.execute_command("EVALSHA", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return await client.execute_command("EVAL", text, len(keys), *keys, *args)


def call_sync(
    client: redis.Redis,
    name: str,
    keys: Sequence[str | bytes],
    args: Sequence[str | bytes | int | float],
) -> Any:
    """Run a script of this folder from a thread or a command."""
    text = source(name)
    try:
        return client.execute_command("EVALSHA", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return client.execute_command("EVAL", text, len(keys), *keys, *args)
