"""The operator's Lua scripts: one partition a call, many calls in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

from worker.adapters.redis.scripts import digest
from worker.contract.redis.connection import redis_errors

FOLDER: Final = Path(__file__).parent / "lua"

Value = str | bytes | int | float


class ScriptCall(NamedTuple):
    """Keys and arguments of one call; all keys are of one slot."""

    keys: Sequence[str | bytes]
    args: Sequence[Value] = ()


@cache
def source(name: str) -> str:
    """Return a script's text."""
    return (FOLDER / f"{name}.lua").read_text()


def run(client: Redis, name: str, calls: Sequence[ScriptCall]) -> list[Any]:
    """Run a script once for each call; each is atomic, all of them are not.

    Raises:
        RedisUnavailable: Some calls may have been made, others not.
    """
    if not calls:
        return []
    text = source(name)
    answers = _pipelined(client, calls, ("EVALSHA", digest(text)))
    unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        again = _pipelined(client, [calls[i] for i in unknown], ("EVAL", text))
        for i, answer in zip(unknown, again, strict=True):
            answers[i] = answer
    with redis_errors():
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    return answers


def _pipelined(client: Redis, calls: Sequence[ScriptCall], command: tuple[str, str]) -> list[Any]:
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(  # type: ignore[no-untyped-call]
                *command, len(call.keys), *call.keys, *call.args
            )
        answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers
