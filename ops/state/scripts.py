"""The operator's Lua scripts: one partition a call, many calls in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis import Redis

from worker.adapters.redis import scripts
from worker.contract.redis.scripts import ScriptCall, run_each

FOLDER: Final = Path(__file__).parent / "lua"


@cache
def source(name: str) -> str:
    """Return the text of a script, with the parts of the worker's scripts that it includes."""
    return scripts.included((FOLDER / f"{name}.lua").read_text("utf-8"))


def run(
    client: Redis, name: str, calls: Sequence[ScriptCall], *, replicated: bool = False
) -> list[Any]:
    """Run a script once for each call; each call is atomic, all together are not.

    Raises:
        RedisUnavailable: Some calls may have been made, others not.
        NotReplicated: All were made, and too few replicas have confirmed them.
    """
    return run_each(client, source(name), calls, replicated=replicated)
