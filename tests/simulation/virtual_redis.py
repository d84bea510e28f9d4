"""A Valkey in virtual time, which can be away, lose answers, restart, and have its clock set.

The ids of entries come from the virtual clock, too, so that a history is the same each time.
"""

import re
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Self

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract.redis.client import Pipeline, Redis
from segrelay.worker.contract.redis.scripts import digest
from segrelay.worker.errors import RedisUnavailable
from tests.conformance.drain.processes import CURRENT

CLOCK = "{insider:0}clock"
"""The key of the present time in microseconds."""
_IDS = f"""
local function add_now(stream, ...)
  local ms = math.floor(redis.call('GET', '{CLOCK}') / 1000)
  local id = redis.pcall('XADD', stream, string.format('%.0f-*', ms), ...)
  if type(id) == 'string' then return id end
  for i, part in ipairs(redis.call('XINFO', 'STREAM', stream)) do
    if part == 'last-generated-id' then
      ms = tonumber(string.match(redis.call('XINFO', 'STREAM', stream)[i + 1], '^%d+'))
    end
  end
  id = redis.pcall('XADD', stream, string.format('%.0f-*', ms), ...)
  if type(id) == 'string' then return id end
  return redis.call('XADD', stream, string.format('%.0f-*', ms + 1), ...)
end
"""
"""XADD as of the virtual clock: never at or before the last id, as Redis does it by its own."""
_NOW = f"local t = tonumber(redis.call('GET', '{CLOCK}')) return {{math.floor(t / 1e6), t % 1e6}}"
_ADD, _RECORD = map(scripts.source, ("_add", "_record"))
_NO_SCRIPT = "0" * 40


@cache
def in_virtual_time(text: str) -> str:
    """Return a script whose clock and ids are those of the history."""
    for part in (_ADD, _RECORD):
        text = text.replace(
            part, _IDS + re.sub(r"redis.call\('XADD', (\w+), '\*', ", r"add_now(\1, ", part)
        )
    return text.replace("redis.call('TIME')", f"(function() {_NOW} end)()")


class Scripts:
    """The scripts that Redis knows, by the digests under which segrelay asks for them."""

    def __init__(self) -> None:
        self._known: dict[Any, str] = {}

    def forget(self) -> None:
        self._known.clear()

    def translated(self, words: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a command as it is asked in virtual time."""
        match words[0]:
            case "EVAL" | "EVAL_RO" | "SCRIPT LOAD":
                text = in_virtual_time(words[1])
                self._known[digest(words[1])] = digest(text)
                return (words[0], text, *words[2:])
            case "EVALSHA" | "EVALSHA_RO":
                return (words[0], self._known.get(words[1], _NO_SCRIPT), *words[2:])
            case "TIME":
                return ("EVAL", _NOW, 0)
        return words


class VirtualClient(Redis):
    """What producers, the sweep and commands of operators ask, and below it what drains ask.

    Attributes:
        scripts: Those that Redis knows.
        asked: How often each command was asked for.
        now_us: Returns the present time.
        fate_of_a_call: Returns whether what is asked next is lost `before` or `after` it is done;
            "" = it is not. Of a drain, its process says so.
    """

    asked: Counter[str]
    scripts: Scripts
    now_us: Callable[[], int]
    fate_of_a_call: Callable[[], str]
    _set_us = 0

    @classmethod
    def beside(cls, client: Redis, now_us: Callable[[], int], known: Scripts | None = None) -> Self:
        """Return one that uses the connections of another client."""
        found = cls(connection_pool=client.connection_pool)
        found.asked, found.scripts = Counter(), known or Scripts()
        found.now_us, found.fate_of_a_call = now_us, lambda: ""
        return found

    def set_clock(self) -> None:
        for words in self._clock():
            super().run_command(*words)

    def _clock(self) -> list[tuple[Any, ...]]:
        """Return the command that sets the clock, if that is needed."""
        now_us = self.now_us()
        if now_us == self._set_us:
            return []
        self._set_us = now_us
        return [("SET", CLOCK, now_us)]

    def run_command(self, *words: Any, **options: Any) -> Any:
        self.asked[words[0]] += 1
        return self._asked(lambda: self._at_a_time(self.scripts.translated(words), options))

    def run_pipeline(self, pipe: Pipeline) -> list[Any]:
        pipe.command_stack = [
            (self.scripts.translated(words), options) for words, options in pipe.command_stack
        ]

        def ask() -> list[Any]:
            self.set_clock()
            return pipe.run()

        return self._asked(ask)

    def _at_a_time(self, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Ask in one round trip, after the clock was set."""
        before = self._clock()
        connection = self.connection_pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_commands([*before, words]))
            for _ in before:
                connection.read_response()
            return self.parse_response(connection, words[0], **options)
        finally:
            self.connection_pool.release(connection)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        process = CURRENT.get(None)
        fate = process.fate_of_a_call() if process else self.fate_of_a_call()
        if fate == "before":
            raise RedisUnavailable("Redis did not answer.")
        answer = ask()
        if fate == "after":
            raise RedisUnavailable("Redis did not answer.")
        return answer


class AtOnce:
    """The asynchronous face of a client: no other task runs between a question and its answer."""

    replicas = 0
    is_cluster = False

    def __init__(self, client: VirtualClient) -> None:
        self.client = client
        self.set_clock = client.set_clock

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        return self.client.execute_command(*words, **options)

    def pipeline(self, *, transaction: bool) -> "_Together":
        return _Together(self.client.pipeline(transaction=transaction))


class _Together:
    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        return self._pipe.execute(raise_on_error)


def at_once(waiting: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine does that waits for nothing."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("It waits.")
