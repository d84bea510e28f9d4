"""The Lua scripts: loaded from their files here, and run from a thread or in an event loop.

What a script gets and answers stands at the top of its file: that is the contract. A line
`--@include _part` is replaced by that file, of the script's folder or of the one here, the first
time that it comes.

A script with many arguments declares them, and nobody counts positions. From

    --@keys lease streams...
    --@args token texts...

`script_call(text, lease=…, streams=[…], token=…, texts=[…])` lays out keys and arguments, and the
script finds `key_lease`, `arg_token`, the numbers `n_streams` and `n_texts`, and member `i` as
`KEYS[at_streams + i]` and `ARGV[at_texts + i]`. With `--@answer taken now`, a script returns
`answer{taken = 1, now = now}`, and `named_answer` reads it. Arguments stay texts: a time never
becomes a number of Lua's, which would lose digits of it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from segrelay.worker.contract.redis.client import (
    AsyncRedis,
    NoScriptError,
    Redis,
    done,
    first_raised,
    run_through,
)
from segrelay.worker.errors import NotReplicated

FOLDER: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = "--@include "

Value = str | bytes | int | float


class ScriptCall(NamedTuple):
    """The keys and arguments of one call of a script; all keys are of one slot."""

    keys: Sequence[str | bytes]
    args: Sequence[Value] = ()


@cache
def load_script(name: str, folder: Path = FOLDER) -> str:
    """Return the text of a script, or of a part of scripts, with the parts that it includes."""
    text = "\n".join(_lines_with_parts(name, folder, set()))
    layout = _layout(text)
    own = ", ".join(f"t.{name}" for name in layout.answer)
    answer = f"local function answer(t) return {{{own}}} end"
    code = {"keys": "", "args": layout.lua_of_values(), "answer": answer}
    return _DECLARED.sub(lambda found: f"{found[0]}\n{code[found[1]]}", text)


def names_of_scripts(folder: Path) -> list[str]:
    """Return the names of the scripts in a folder, without those of parts of scripts."""
    return [path.stem for path in folder.glob("[!_]*.lua")]


def _lines_with_parts(name: str, folder: Path, included: set[str]) -> Iterator[str]:
    path = folder / f"{name}.lua"
    for line in (path if path.exists() else FOLDER / path.name).read_text("utf-8").splitlines():
        part = line.removeprefix(_INCLUDE) if line.startswith(_INCLUDE) else ""
        if not part:
            yield line
        elif part not in included:
            included.add(part)
            yield from _lines_with_parts(part, folder, included)


_DECLARED: Final = re.compile(r"^--@(keys|args|answer) (.*)$", re.MULTILINE)
_LIST: Final = "..."


@dataclass(frozen=True, slots=True)
class _Layout:
    """The keys, arguments and answer that a script declares.

    Args:
        keys: The names of the keys that are single; they come first.
        args: The names of the arguments that are single; they come first.
        lists: The names of the lists of keys, and behind them of those of arguments. If there are
            any, the first argument holds their lengths.
        lists_of_keys: The number of lists of keys.
    """

    keys: tuple[str, ...]
    args: tuple[str, ...]
    lists: tuple[str, ...]
    lists_of_keys: int
    answer: tuple[str, ...]

    def lua_of_values(self) -> str:
        """Return the code that gives a script its keys and arguments by name.

        They are local variables: to put them into tables takes Redis a tenth of a small call.
        """
        lines = []
        if self.lists:
            counts = ", ".join(f"n_{name}" for name in self.lists)
            lines.append(f"{counts} = struct.unpack('<{'I4' * len(self.lists)}', ARGV[1])")
        of_keys, of_args = self.lists[: self.lists_of_keys], self.lists[self.lists_of_keys :]
        for what, source, single, lists, begin in (
            ("key", "KEYS", self.keys, of_keys, 0),
            ("arg", "ARGV", self.args, of_args, bool(self.lists)),
        ):
            for at, name in enumerate(single, start=begin + 1):
                lines.append(f"{what}_{name} = {source}[{at}]")
            begins = str(begin + len(single))
            for name in lists:
                lines.append(f"at_{name} = {begins}")
                begins = f"at_{name} + n_{name}"
        return " ".join(f"local {line}" for line in lines)


@cache
def _layout(text: str) -> _Layout:
    declared = dict(_DECLARED.findall(text))
    keys, args, answer = (declared.get(what, "").split() for what in ("keys", "args", "answer"))
    of_keys, of_args = ([name for name in names if name.endswith(_LIST)] for names in (keys, args))
    return _Layout(
        tuple(keys[: len(keys) - len(of_keys)]),
        tuple(args[: len(args) - len(of_args)]),
        tuple(name.removesuffix(_LIST) for name in (*of_keys, *of_args)),
        len(of_keys),
        tuple(answer),
    )


IN_ANY_CASE: Final = load_script("one_command")
"""Runs one command on one key, also in a full Redis: its name, and the words behind the key."""


def script_call(text: str, of: object = None, /, **values: Any) -> ScriptCall:
    """Return the call of a script that declares its keys and arguments, given by name.

    Args:
        text: The script.
        of: The object whose attributes are the keys that `values` lacks.
        values: The keys and arguments, by name.

    Raises:
        TypeError: The script declares no such value.
    """
    layout = _layout(text)
    lists = [values.pop(name) for name in layout.lists]
    keys = [values.pop(name) if name in values else getattr(of, name) for name in layout.keys]
    args = [values.pop(name) for name in layout.args]
    if values:
        raise TypeError(f"The script declares no {sorted(values)}.")
    if lists:
        args.insert(0, struct.pack(f"<{len(lists)}I", *map(len, lists)))
    for number, values_of in enumerate(lists):
        (keys if number < layout.lists_of_keys else args).extend(values_of)
    return ScriptCall(keys, args)


def named_key(text: str, call: ScriptCall, name: str) -> str | bytes:
    """Return the key of a call that its script knows by a name."""
    return call.keys[_layout(text).keys.index(name)]


def first_keys(text: str, call: ScriptCall) -> Sequence[str | bytes]:
    """Return the keys of a call that are members of the first list of its script."""
    begin = len(_layout(text).keys)
    (count,) = struct.unpack_from("<I", call.args[0])  # type: ignore[arg-type]
    return call.keys[begin : begin + count]


def named_answer(text: str, answer: Iterable[Any]) -> dict[str, Any]:
    """Return the parts of a script's answer by the names that it declares.

    An answer that ends early has fewer.
    """
    return dict(zip(_layout(text).answer, answer, strict=False))


@cache
def digest(text: str) -> str:
    """Return the digest by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def prepare(text: str) -> None:
    """Compute the digest and the layout of a script, which its first call would have to compute."""
    digest(text)
    _layout(text)


_Words = Sequence[Value]
NamedCall = tuple[str, ScriptCall]
"""A script, with a call of it."""


def run_script(client: Redis, text: str, keys: Sequence[str | bytes], args: Sequence[Value]) -> Any:
    """Run a script by its digest, or by its text if Redis does not know it.

    One that only reads is repeated on the next master by a client that waits for one.
    """
    return run_through(_run(client, (text, ScriptCall(keys, args))))


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
        keys: The keys, all of one slot.
        args: The arguments.
        replicated: True if the call waits until as many replicas as the client demands have its
            writes.

    Raises:
        NotReplicated: It was run, and too few replicas have confirmed it.
    """
    call = (text, ScriptCall(keys, args))
    if replicated and client.replicas:
        return first_raised(await _run_each(client, [call], (), client.replicas))[0]
    return await _run(client, call)


async def _run(client: Redis | AsyncRedis, call: NamedCall) -> Any:
    try:
        return await done(client.execute_command(*_by_digest(call)))
    except NoScriptError:
        return await done(client.execute_command(*_by_text(call)))


def run_each(
    client: Redis,
    text: str,
    calls: Sequence[ScriptCall],
    *,
    then: Sequence[_Words] = (),
    synced_once: bool = False,
    replicated: bool = False,
) -> list[Any]:
    """Run a script once for each call, in one round trip; each call is atomic, the whole is not.

    Args:
        client: Redis.
        text: The script.
        calls: The calls, which may be of different slots.
        then: Further commands, whose answers nobody needs.
        synced_once: True if Redis runs all of them before it writes to its disk. Else it runs what
            a read of 16 KB completes, and waits for the disk before it reads on. They are in a
            MULTI: others wait for all of them, so they should be few. In a Cluster, where a MULTI
            has keys of one slot, they are not.
        replicated: True if the call waits until as many replicas as the client demands have the
            writes; these calls are not in a MULTI then, in which nothing can wait.

    Raises:
        RedisUnavailable: Some calls may have been made, others not.
        NotReplicated: All were made, and too few replicas have confirmed them.
    """
    replicas = client.replicas if replicated else 0
    in_multi = synced_once and not replicas and not client.is_cluster
    pairs = [(text, call) for call in calls]
    answers = run_through(_run_each(client, pairs, then, replicas, in_multi=in_multi))
    return first_raised(answers[: len(calls)])


async def run_together(
    client: Redis | AsyncRedis, calls: Sequence[NamedCall], commands: Sequence[_Words]
) -> list[Any]:
    """Run scripts and, after them, commands in the same round trip; return the answers in order.

    A single server keeps their order; a Cluster only among those of one slot.
    """
    return first_raised(await _run_each(client, calls, commands))


async def _run_each(
    client: Redis | AsyncRedis,
    calls: Sequence[NamedCall],
    then: Sequence[_Words],
    replicas: int = 0,
    *,
    in_multi: bool = False,
) -> list[Any]:
    """Return the answers to calls and to the commands behind them, errors among them.

    Scripts that Redis does not know are sent to it, and the commands once more behind them.
    """

    async def ask(some: Sequence[_Words]) -> list[Any]:
        pipe = client.pipeline(transaction=in_multi)
        for words in (*some, *then, *_wait_commands(replicas)):
            pipe.execute_command(*words)
        return _confirmed(await done(pipe.execute(raise_on_error=False)), replicas)

    if not calls:
        return []
    answers = await ask(list(map(_by_digest, calls)))
    unknown = [at for at in range(len(calls)) if isinstance(answers[at], NoScriptError)]
    if unknown:
        found = await ask([_by_text(calls[at]) for at in unknown])
        places = (*unknown, *range(len(calls), len(answers)))
        for at, answer in zip(places, found, strict=True):
            answers[at] = answer
    return answers


def _by_digest(call: NamedCall) -> _Words:
    return _words("EVALSHA", digest(call[0]), call)


def _by_text(call: NamedCall) -> _Words:
    return _words("EVAL", call[0], call)


def _words(name: str, script: str, call: NamedCall) -> _Words:
    text, (keys, args) = call
    return (f"{name}_RO" if _only_reads(text) else name, script, len(keys), *keys, *args)


@cache
def _only_reads(text: str) -> bool:
    return text.startswith("#!lua flags=no-writes\n")


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
    return answers[: -len(WAITS_MS)]
