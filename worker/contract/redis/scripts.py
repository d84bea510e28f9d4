"""The Lua scripts: loaded from their files here, and run from a thread or in an event loop.

What a script gets and answers stands at the top of its file: that is the contract. A line
`--@include _part` is replaced by that file, of the script's folder or of the one here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from segrelay.worker.contract.redis.client import AsyncRedis, NoScriptError, Redis
from segrelay.worker.contract.redis.cluster import ClusterClient
from segrelay.worker.errors import NotReplicated

FOLDER: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = "--@include "

Value = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """Keys and arguments of one call; all keys are of one slot."""

    keys: Sequence[str | bytes]
    args: Sequence[Value] = ()


@cache
def load_script(name: str, folder: Path = FOLDER) -> str:
    """Return the text of a script, or of a part of scripts, with the parts that it includes."""
    path = folder / f"{name}.lua"
    lines = (path if path.exists() else FOLDER / path.name).read_text("utf-8").splitlines()
    return "\n".join(
        load_script(line.removeprefix(_INCLUDE), folder) if line.startswith(_INCLUDE) else line
        for line in lines
    )


@cache
def digest(text: str) -> str:
    """Return the digest by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def run_script(client: Redis, text: str, keys: Sequence[str | bytes], args: Sequence[Value]) -> Any:
    """Run a script by its digest, or by its text if Redis does not know it."""
    try:
        return client.execute_command("EVALSHA", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return client.execute_command("EVAL", text, len(keys), *keys, *args)


async def run_script_async(
    client: AsyncRedis,
    text: str,
    keys: Sequence[str | bytes],
    args: Sequence[Value],
    *,
    replicated: bool = False,
) -> Any:
    """Run a script from an event loop; see `run_script`.

    Args:
        client: Redis.
        text: The script.
        keys: All of one slot.
        args: Its arguments.
        replicated: Whether to wait until as many replicas have it as the client demands.

    Raises:
        NotReplicated: It was run, and too few replicas have confirmed it.
    """
    if replicated and client.replicas:
        return (await run_each_async(client, [(text, ScriptCall(keys, args))], replicated=True))[0]
    try:
        return await client.execute_command("EVALSHA", digest(text), len(keys), *keys, *args)
    except NoScriptError:
        return await client.execute_command("EVAL", text, len(keys), *keys, *args)


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
        calls: They may be of different slots.
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

    def ask(some: Sequence[_Words]) -> list[Any]:
        pipe = client.pipeline(transaction=synced_once)
        for words in (*some, *then, *_wait_commands(replicas)):
            pipe.execute_command(*words)
        return _confirmed(pipe.execute(raise_on_error=False), replicas)[: len(some)]

    pairs = [(text, call) for call in calls]
    answers = ask(list(map(_by_digest, pairs)))
    unknown = _unknown(answers)
    if unknown:
        _fill(answers, unknown, ask([_by_text(pairs[at]) for at in unknown]))
    return _first_raised(answers)


async def run_each_async(
    client: AsyncRedis, calls: Sequence[tuple[str, ScriptCall]], *, replicated: bool = False
) -> list[Any]:
    """Run scripts, each with its call, in one round trip; see `run_each`."""
    if not calls:
        return []
    replicas = client.replicas if replicated else 0

    async def ask(some: Sequence[_Words]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            for words in (*some, *_wait_commands(replicas)):
                pipe.execute_command(*words)
            return _confirmed(await pipe.execute(raise_on_error=False), replicas)[: len(some)]

    answers = await ask(list(map(_by_digest, calls)))
    unknown = _unknown(answers)
    if unknown:
        _fill(answers, unknown, await ask([_by_text(calls[at]) for at in unknown]))
    return _first_raised(answers)


_Words = Sequence[Value]


def _by_digest(pair: tuple[str, ScriptCall]) -> _Words:
    text, call = pair
    return ("EVALSHA", digest(text), len(call.keys), *call.keys, *call.args)


def _by_text(pair: tuple[str, ScriptCall]) -> _Words:
    text, call = pair
    return ("EVAL", text, len(call.keys), *call.keys, *call.args)


def _unknown(answers: Sequence[Any]) -> list[int]:
    """Return the places of the calls whose script Redis does not know."""
    return [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


def _fill(answers: list[Any], places: Sequence[int], found: Sequence[Any]) -> None:
    for at, answer in zip(places, found, strict=True):
        answers[at] = answer


def _first_raised(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


WAITS_MS: Final = (1, 2, 5, 20, 100, 1_000, 2_800)
"""The waits in ms, one after the other, in which replicas have to confirm a write.

A replica answers before its disk has the write, and again only after a second, unless it is asked
again: each wait asks. Together they stay below the 5 s after which a client gives up.
"""
_REFUSED: Final = (
    "{confirmed} of {wanted} replicas that redis.replicas demands have confirmed what was written:"
    " see that the replicas run, follow the master and have appendonly on"
)


def _wait_commands(replicas: int) -> list[_Words]:
    """Return the commands that wait for replicas, of whose answers the last one counts.

    They count what was written over their own connection, so they follow it there.
    """
    return [("WAITAOF", 0, replicas, wait_ms) for wait_ms in WAITS_MS] if replicas else []


def _confirmed(answers: list[Any], replicas: int) -> list[Any]:
    """Check the last answer to `_wait_commands`.

    Raises:
        NotReplicated: Too few replicas have confirmed; the write may outlive a failover or not.
    """
    if not replicas:
        return answers
    if isinstance(answers[-1], Exception):
        raise answers[-1]
    confirmed = int(answers[-1][1])
    if confirmed < replicas:
        raise NotReplicated(_REFUSED.format(confirmed=confirmed, wanted=replicas) + ".")
    return answers
