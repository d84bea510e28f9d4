"""The Lua scripts: loaded from their files here, and run from a thread or in an event loop.

What a script gets and answers stands at the top of its file: that is the contract. A line
`--@include _part` is replaced by that file, of the script's folder or of the one here, the first
time that it comes.

A script with many arguments declares them, and nobody counts positions. From

    --@keys lease streams...
    --@args token entries[stream text]

`script_call(text, lease=…, streams=[…], token=…, entries={"stream": […], "text": […]})` lays out
keys and arguments, and the script finds `key_lease`, `arg_token`, the numbers `n_streams` and
`n_entries`, and member `i` as `KEYS[at_streams + i]` and `ARGV[at_entries_text + i]`. A key `name?`
may be absent. With `--@answer taken now`, a script returns `answer{taken = 1, now = now}`, and
`named_answer` reads it. Arguments stay texts: a time never becomes a number of Lua's, which would
lose digits of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from segrelay.worker.contract.redis.client import AsyncRedis, NoScriptError, Redis, first_raised
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
    text = "\n".join(_lines_with_parts(name, folder, set()))
    layout = _layout(text)
    code = {"keys": "", "args": layout.lua_of_values(), "answer": layout.lua_of_answer()}
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
_FIELD: Final = re.compile(r"(\w+)(\.\.\.|\?|\[([^\]]*)\])?")


@dataclass(frozen=True, slots=True)
class _Several:
    """A part of the keys or arguments of a script that may be of any length.

    Args:
        columns: The names of the fields of its members; () = its members are single values.
        may_lack: True if it is one key that may be absent.
    """

    name: str
    columns: tuple[str, ...] = ()
    may_lack: bool = False

    @property
    def names(self) -> list[str]:
        """The names under which the script finds where its columns begin."""
        return [f"{self.name}_{column}" for column in self.columns] or [self.name]


@dataclass(frozen=True, slots=True)
class _Half:
    """The keys, or the arguments, that a script declares: single ones come before the others."""

    single: tuple[str, ...]
    several: tuple[_Several, ...]

    @classmethod
    def of(cls, declared: str) -> _Half:
        """Read a declaration."""
        fields = _FIELD.findall(declared)
        return cls(
            tuple(name for name, suffix, _ in fields if not suffix),
            tuple(
                _Several(name, tuple(columns.split()), suffix == "?")
                for name, suffix, columns in fields
                if suffix
            ),
        )

    def lay_out(self, values: Mapping[str, Any], counts: list[int], of: object) -> list[Any]:
        """Return the values in the order in which the script expects them."""
        found = [values[name] if name in values else getattr(of, name) for name in self.single]
        for each in self.several:
            value = values[each.name]
            if each.may_lack:
                counts.append(value is not None)
                found += () if value is None else (value,)
            elif each.columns:
                for column in each.columns:
                    found += value[column]
                counts.append(len(value[each.columns[0]]))
            else:
                found += value
                counts.append(len(value))
        return found


@dataclass(frozen=True, slots=True)
class _Layout:
    """The declared keys, arguments and answer of a script.

    Args:
        several: All parts of any length; their lengths are the first argument, if there are any.
        counts: The form of that argument.
        names: The names of all values of a call.
    """

    keys: _Half
    args: _Half
    answer: tuple[str, ...]
    several: tuple[_Several, ...]
    counts: struct.Struct
    names: frozenset[str]

    def lua_of_answer(self) -> str:
        """Return the code that puts an answer in order."""
        own = ", ".join(f"t.{name}" for name in self.answer)
        return f"local function answer(t) return {{{own}}} end"

    def lua_of_values(self) -> str:
        """Return the code that gives a script its keys and arguments by name.

        They are local variables: to put them into tables takes Redis a tenth of a small call.
        """
        lines = []
        if self.several:
            counts = ", ".join(f"n_{each.name}" for each in self.several)
            lines.append(f"{counts} = struct.unpack('<{'I4' * len(self.several)}', ARGV[1])")
        behind = 1 if self.several else 0
        for what, source, half, begin in (
            ("key", "KEYS", self.keys, 0),
            ("arg", "ARGV", self.args, behind),
        ):
            positions = range(begin + 1, begin + len(half.single) + 1)
            if half.single:
                names = ", ".join(f"{what}_{name}" for name in half.single)
                lines.append(f"{names} = {', '.join(f'{source}[{at}]' for at in positions)}")
            begins = str(begin + len(half.single))
            for each in half.several:
                for name in each.names:
                    lines.append(f"at_{name} = {begins}")
                    begins = f"at_{name} + n_{each.name}"
                if each.may_lack:
                    found = f"n_{each.name} == 1 and {source}[at_{each.name} + 1] or nil"
                    lines.append(f"{what}_{each.name} = {found}")
        return " ".join(f"local {line}" for line in lines)


@cache
def _layout(text: str) -> _Layout:
    declared = dict(_DECLARED.findall(text))
    keys, args = (_Half.of(declared.get(half, "")) for half in ("keys", "args"))
    several = (*keys.several, *args.several)
    names = (*keys.single, *args.single, *(each.name for each in several))
    answer = tuple(declared.get("answer", "").split())
    return _Layout(
        keys, args, answer, several, struct.Struct(f"<{len(several)}I"), frozenset(names)
    )


IN_ANY_CASE: Final = load_script("one_command")
"""Runs one command on one key, also in a full Redis: its name, and the words behind the key."""


def script_call(text: str, of: object = None, /, **values: Any) -> ScriptCall:
    """Return the call of a script that declares its keys and arguments, given by name.

    Args:
        text: The script.
        of: The object whose attributes are the keys that `values` lacks.
        values: Keys and arguments.

    Raises:
        TypeError: The script declares no such value.
    """
    layout = _layout(text)
    counts: list[int] = []
    keys = layout.keys.lay_out(values, counts, of)
    args = layout.args.lay_out(values, counts, None)
    if not values.keys() <= layout.names:
        raise TypeError(f"The script declares no {sorted(values.keys() - layout.names)}.")
    return ScriptCall(keys, [layout.counts.pack(*counts), *args] if counts else args)


def named_key(text: str, call: ScriptCall, name: str) -> str | bytes:
    """Return the key of a call that its script knows by a name."""
    return call.keys[_layout(text).keys.single.index(name)]


def named_keys(text: str, call: ScriptCall, name: str) -> Sequence[str | bytes]:
    """Return the keys of a call that are members of a list of its script."""
    layout = _layout(text)
    counts = layout.counts.unpack(call.args[0])  # type: ignore[arg-type]
    at = [each.name for each in layout.keys.several].index(name)
    first = len(layout.keys.single) + sum(counts[:at])
    return call.keys[first : first + counts[at]]


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
        replicated: True if to wait until as many replicas have it as the client demands.

    Raises:
        NotReplicated: It was run, and too few replicas have confirmed it.
    """
    if replicated and client.replicas:
        return (await run_each_async(client, [(text, ScriptCall(keys, args))], replicated=True))[0]
    shared = _SHARED.get()
    if shared is not None:
        return await shared.run(client, (text, ScriptCall(keys, args)))
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
    return first_raised(answers)


async def run_script_then(
    client: AsyncRedis, text: str, call: ScriptCall, commands: Sequence[Sequence[Value]]
) -> list[Any]:
    """Run a script and, after it, commands in the same round trip; return the answers in order.

    The client has to keep their order.
    """

    async def ask(words: _Words) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            for each in (words, *commands):
                pipe.execute_command(*each)
            return await pipe.execute(raise_on_error=False)

    answers = await ask(_by_digest((text, call)))
    if isinstance(answers[0], NoScriptError):
        answers = await ask(_by_text((text, call)))
    return first_raised(answers)


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
    return first_raised(answers)


@contextmanager
def one_round_trip() -> Iterator[None]:
    """Send the scripts that the tasks of this block run in one round trip.

    Those go together that begin in the same turn of the event loop. Over two connections, the
    second one would wait until Redis' disk has what the first one has written, and then for its
    own. If a call fails, all that went with it do. What waits for replicas goes alone.
    """
    token = _SHARED.set(_SharedRoundTrip())
    try:
        yield
    finally:
        _SHARED.reset(token)


@dataclass(slots=True, eq=False)
class _SharedRoundTrip:
    """The calls of scripts that have begun since the last ones went to Redis."""

    _calls: list[tuple[tuple[str, ScriptCall], asyncio.Future[Any]]] = field(default_factory=list)
    _sending: asyncio.Task[None] | None = None

    async def run(self, client: AsyncRedis, call: tuple[str, ScriptCall]) -> Any:
        """Run a script together with the others of this turn; see `run_script_async`."""
        answer = asyncio.get_running_loop().create_future()
        self._calls.append((call, answer))
        if len(self._calls) == 1:
            # It has its turn behind all tasks that are ready by now.
            self._sending = asyncio.ensure_future(self._send(client))
        return await answer

    async def _send(self, client: AsyncRedis) -> None:
        calls, self._calls = self._calls, []
        waiting = [answer for _, answer in calls]
        try:
            answers = await run_each_async(client, [call for call, _ in calls])
        except asyncio.CancelledError:
            for answer in waiting:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits for it raises it
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, found in zip(waiting, answers, strict=True):
            if not answer.done():
                answer.set_result(found)


_SHARED: Final = ContextVar[_SharedRoundTrip | None]("shared_round_trip", default=None)


_Words = Sequence[Value]


def _by_digest(pair: tuple[str, ScriptCall]) -> _Words:
    text, call = pair
    return ("EVALSHA", digest(text), len(call.keys), *call.keys, *call.args)


def _by_text(pair: tuple[str, ScriptCall]) -> _Words:
    text, call = pair
    return ("EVAL", text, len(call.keys), *call.keys, *call.args)


def _unknown(answers: Sequence[Any]) -> list[int]:
    """Return the positions of the calls whose script Redis does not know."""
    return [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


def _fill(answers: list[Any], positions: Sequence[int], found: Sequence[Any]) -> None:
    for at, answer in zip(positions, found, strict=True):
        answers[at] = answer


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
