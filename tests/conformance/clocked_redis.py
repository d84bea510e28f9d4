"""A Valkey on a clock of the test's, behind an asynchronous client that answers at once."""

from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Self

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract.redis.client import NoScriptError, Redis
from segrelay.worker.contract.redis.scripts import digest

CLOCK = "{insider:0}clock"
"""The key of the present time in microseconds; in a Cluster, it is beside those of a partition."""
GATES_CLOCK = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]"
"""The lines by which scripts of the gate ask for the time."""
_OURS = {
    scripts.source("_clock"): f"local now = math.floor(redis.call('GET', '{CLOCK}') / 1000)",
    GATES_CLOCK: f"local now = tonumber(redis.call('GET', '{CLOCK}'))",
}


@cache
def on_our_clock(text: str) -> str:
    """Return a script but for the line that asks Redis for the time."""
    for theirs, ours in _OURS.items():
        text = text.replace(theirs, ours)
    return text


def script_on_our_clock(name: str) -> str:
    return on_our_clock(scripts.source(name))


class ClockedRedis:
    """What our adapters call of an asynchronous client.

    No other task runs between a question and its answer, so that time may be virtual. Only the ids
    of entries are given by the Valkey's own clock.

    Args:
        client: Connected to the Valkey.
        now_us: The present time.

    Attributes:
        asked: How often each command was asked for.
    """

    replicas = 0

    def __init__(self, client: Redis, now_us: Callable[[], int]) -> None:
        self.client = client
        self._now_us = now_us
        self._set_us = 0
        self._known: dict[str, str] = {}
        self.asked: Counter[str] = Counter()

    async def execute_command(self, *words: Any) -> Any:
        return self.call(*words)

    def call(self, *words: Any) -> Any:
        self.asked[words[0]] += 1
        if words[0] == "EVAL":
            text = on_our_clock(words[1])
            self._known[digest(words[1])] = digest(text)
            words = ("EVAL", text, *words[2:])
        elif words[0] == "EVALSHA":
            if words[1] not in self._known:
                raise NoScriptError
            words = ("EVALSHA", self._known[words[1]], *words[2:])
        self.set_clock()
        return self.client.execute_command(*words)

    def set_clock(self) -> None:
        now_us = self._now_us()
        if now_us != self._set_us:
            self.client.set(CLOCK, now_us)
            self._set_us = now_us

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        assert not transaction
        return _Pipeline(self)


class _Pipeline:
    def __init__(self, redis: ClockedRedis) -> None:
        self._redis = redis
        self._calls: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def execute_command(self, *words: Any) -> None:
        self._calls.append(words)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return [self._answer(words) for words in self._calls]

    def _answer(self, words: tuple[Any, ...]) -> Any:
        try:
            return self._redis.call(*words)
        except NoScriptError as error:
            return error


def at_once(waiting: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine does that waits for nothing."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("It waits.")
