"""Runs Lua scripts from a thread or a command: by digest, or by text if Redis lacks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from redis.exceptions import NoScriptError

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.cluster import ClusterClient
from segrelay.worker.contract.redis.connection import (
    require_confirmed,
    wait_commands,
)

Value = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """Keys and arguments of one call; all keys are of one slot."""

    keys: Sequence[str | bytes]
    args: Sequence[Value] = ()


@cache
def digest(text: str) -> str:
    """Return the digest by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def run_script(client: Redis, text: str, keys: Sequence[str | bytes], args: Sequence[Value]) -> Any:
    """Run a script by its digest, or by its text if Redis does not know it."""
    try:
        return client.evalsha(digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return client.eval(text, len(keys), *keys, *args)


def read_by_script(
    client: Redis, text: str, keys: Sequence[str | bytes], args: Sequence[Value]
) -> Any:
    """Run a script that only reads; a client that waits for a master repeats it on the next one."""
    run: Any = client.execute_command
    try:
        return run("EVALSHA_RO", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return run("EVAL_RO", text, len(keys), *keys, *args)


def run_each(
    client: Redis,
    text: str,
    calls: Sequence[ScriptCall],
    *,
    then: Sequence[Sequence[Value]] = (),
    synced_once: bool = False,
    replicated: bool = False,
) -> list[Any]:
    """Run a script once for each call, in one round trip; each call is atomic, the whole is not.

    Args:
        client: Redis.
        text: The script.
        calls: The calls, which may be of different slots.
        then: Further commands, whose answers nobody needs.
        synced_once: Let Redis run all of them before it writes to its disk. Else it runs what a
            read of 16 KB completes, and waits for the disk before it reads on. They are in a MULTI:
            others wait for all of them, so they should be few. In a Cluster, where a MULTI has keys
            of one slot, they are not.
        replicated: Wait until as many replicas have it as the client demands; these calls are not
            in a MULTI then, in which nothing can wait.

    Raises:
        RedisUnavailable: Some calls may have been made, others not.
        NotReplicated: All were made, and too few replicas have confirmed them.
    """
    if not calls:
        return []
    replicas = client.replicas if replicated else 0
    synced_once = synced_once and not replicas and not isinstance(client, ClusterClient)
    pipelined = partial(_pipelined, client, then=then, synced_once=synced_once, replicas=replicas)
    answers = pipelined(("EVALSHA", digest(text)), calls)
    unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        left = [calls[at] for at in unknown]
        again = pipelined(("EVAL", text), left)
        for at, answer in zip(unknown, again, strict=True):
            answers[at] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _pipelined(
    client: Redis,
    command: tuple[str, str],
    calls: Sequence[ScriptCall],
    *,
    then: Sequence[Sequence[Value]],
    synced_once: bool,
    replicas: int,
) -> list[Any]:
    pipe = client.pipeline(transaction=synced_once)
    for words in [
        *((*command, len(call.keys), *call.keys, *call.args) for call in calls),
        *then,
        *wait_commands(replicas),
    ]:
        pipe.execute_command(*words)
    answers: list[Any] = pipe.execute(raise_on_error=False)
    if replicas:
        require_confirmed(answers[-1], replicas)
    return answers[: len(calls)]
