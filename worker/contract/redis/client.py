"""The clients of Redis, synchronous and asynchronous: they raise our errors, and repeat nothing.

All of segrelay asks Redis through them, and no module outside this folder imports the library. A
client of a Cluster or behind Sentinels is one of these with another `run_command`: see `masters`.
An error that means "Redis can't be used now" becomes `RedisUnavailable`, after
which nobody knows whether the command took effect. Others (a wrong type, a missing script) are
mistakes of ours, and pass as they are.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis
import redis.asyncio
import redis.asyncio.client
import redis.client
from redis import exceptions
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisError, ResponseError

from segrelay.worker.errors import NotPermitted, RedisUnavailable

# What comes from the library, which no module outside this folder imports.
__all__ = ["NoScriptError", "RedisError", "ResponseError", "key_slot"]


class NoMaster(exceptions.ConnectionError):
    """There is no master, or not where it was; its message says why, as a part of a sentence."""


class Pipeline(redis.client.Pipeline):
    """Commands that go to Redis together; `execute` raises our errors.

    Attributes:
        made_by: The client that sends them.
    """

    made_by: Redis
    if TYPE_CHECKING:

        def execute_command(self, *words: Any, **options: Any) -> Any:
            """Add a command to the others."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as in the library
        """Send the commands, and return the answers to each.

        Args:
            raise_on_error: True if the first error is raised; else errors are answers, too.

        Raises:
            RedisUnavailable: Some commands may have been run, others not.
        """
        with redis_errors(self.made_by.where):
            answers = self.made_by.run_pipeline(self)
            if raise_on_error:
                first_raised(answers)
        return _ours_among(answers, self.made_by.where)

    def run(self) -> list[Any]:
        """Send the commands to the server of the client; errors are answers, too."""
        return super().execute(raise_on_error=False)


class Redis(redis.Redis):
    """A client of one server.

    It returns the answer to XREAD as Redis gives it: the library would make a dict of each entry,
    of which a drain reads thousands.

    Attributes:
        replicas: Number of replicas that must have what was accepted, noted or settled on their
            disks before it counts as written; 0 = none.
        where: The address, for messages; "" = it is not named.
        is_cluster: True if it sends each command to the master of its keys.
    """

    replicas: int = 0
    where: str = ""
    is_cluster: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.response_callbacks.pop("XREAD")

    def masters(self) -> list[tuple[str, Redis]]:
        """Return the address and a client of each master; a single server's address is empty."""
        return [("", self)]

    def keys_of_masters(self) -> dict[str, str]:
        """Return a key of each master of a Cluster, and the master's address."""
        return {}

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run a command at most once, and return its answer.

        Raises:
            RedisUnavailable: Redis is not there, loading, read-only, full, or refuses us.
        """
        with redis_errors(self.where):
            return self.run_command(*words, **options)

    def run_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:  # noqa: FBT001, FBT002 - as in the library
        """Return a pipeline; without a transaction, others' commands may come in between."""
        pipe = Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.made_by = self
        return pipe

    def run_pipeline(self, pipe: Pipeline) -> list[Any]:
        """Send the commands of a pipeline; refusals are answers, other errors are raised."""
        return pipe.run()


class AsyncPipeline(redis.asyncio.client.Pipeline):
    """The asynchronous form of `Pipeline`."""

    made_by: AsyncRedis
    if TYPE_CHECKING:

        def execute_command(self, *words: Any, **options: Any) -> Any:
            """Add a command to the others."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as in the library
        with redis_errors(self.made_by.where):
            answers = await self.made_by.run_pipeline(self)
            if raise_on_error:
                first_raised(answers)
        return _ours_among(answers, self.made_by.where)

    async def run(self) -> list[Any]:
        return await super().execute(raise_on_error=False)


class AsyncRedis(redis.asyncio.Redis):
    """An asynchronous client of one server; see `Redis`."""

    replicas: int = 0
    where: str = ""
    is_cluster: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.response_callbacks.pop("XREAD")

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        with redis_errors(self.where):
            return await self.run_command(*words, **options)

    async def run_command(self, *words: Any, **options: Any) -> Any:
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> AsyncPipeline:  # noqa: FBT001, FBT002 - as in the library
        pipe = AsyncPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.made_by = self
        return pipe

    async def run_pipeline(self, pipe: AsyncPipeline) -> list[Any]:
        return await pipe.run()


def first_raised(answers: list[Any]) -> list[Any]:
    """Return the answers, unless one is an error, which is raised."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


_T = TypeVar("_T")


async def done(answer: Any) -> Any:
    """Return what a synchronous or an asynchronous client answers."""
    return await answer if isawaitable(answer) else answer


def run_through(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that waits for nothing, since its client is synchronous."""
    try:
        steps.send(None)
    except StopIteration as end:
        answer: _T = end.value
        return answer
    raise AssertionError("a synchronous client has waited for an event loop")


_REFUSALS: Final[Mapping[str, str]] = {
    "OOM": "is full (maxmemory): nothing is accepted until what waits has been worked off",
    "MISCONF": "can't write to its disk: free some space there, and look at its log",
    "READONLY": "is a read-only replica: redis.url has to name the master",
    "CLUSTERDOWN": "says that its cluster is down",
    "MASTERDOWN": "is a replica that has lost its master",
    "UNBLOCKED": "is no longer the master: it became a replica while it was waited for",
    "NOREPLICAS": "has too few replicas for a write (min-replicas-to-write)",
    "BUSY": "is busy with a script",
    "NOPERM": "does not let this user do what is needed: widen its ACL",
    "NOAUTH": "wants a password: set it in redis.url",
    "LOADING": "is loading its data; wait",
}
"""Messages for the error words of Redis that mean: not now, or not with this Redis."""
_NO_LONGER_MASTER: Final = "cannot be used with replica instances"
"""The error text of WAITAOF on a server that is a replica, or has become one since the write."""
_NO_MULTI: Final = "EXEC without MULTI"
"""The error text after a MULTI that the Redis user may not send."""


def is_master_no_longer(answer: Any) -> bool:
    """Say whether a server answers that it is a replica by now."""
    return isinstance(answer, ResponseError) and refusing_word(answer) == "UNBLOCKED"


class redis_errors:  # noqa: N801 - it is called like a function
    """Turns the library's errors into ours, in a client and for what asks it by `run_command`."""

    def __init__(self, where: str = "") -> None:
        self._where = where
        self._begun = time.monotonic()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise our error for one of the library's; mistakes of ours pass as they are."""
        if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | ResponseError):
            ours = _ours(error, self._where, time.monotonic() - self._begun)
            if ours is not error:
                raise ours from ours.__cause__


def _ours_among(answers: list[Any], where: str) -> list[Any]:
    return [
        _ours(each, where) if isinstance(each, ResponseError | NoMaster) else each
        for each in answers
    ]


def _ours(error: RedisError, where: str, waited_seconds: float = 0.0) -> Exception:
    """Return our error for one of the library's, or itself where it is a mistake of ours."""
    is_refusal = isinstance(error, ResponseError)
    why = _REFUSALS.get(refusing_word(error)) if is_refusal else _why_unreachable(error)
    if why is None:
        return error
    kind = NotPermitted if why == _REFUSALS["NOPERM"] else RedisUnavailable
    ours = kind(f"Redis at {where} {why}." if where else f"Redis {why}.", waited_seconds)
    # In a pipeline the library's message of a refusal repeats the command, with its profile.
    ours.__cause__ = None if is_refusal else error
    return ours


def _why_unreachable(error: RedisError) -> str:
    match error:
        case exceptions.BusyLoadingError():
            return _REFUSALS["LOADING"]
        case exceptions.AuthenticationError():
            return "refuses the user name or password: correct redis.url"
        case exceptions.TimeoutError():
            return "did not answer in time"
        case NoMaster():
            return str(error)
    detail = str(error).rstrip(".") or "the connection was cut"
    return f"can't be reached ({detail}): see that it runs, and that redis.url is right"


_REFUSING: Final[Mapping[type[RedisError], str]] = {
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.NoPermissionError: "NOPERM",
}
"""The library's errors whose texts lack the word of Redis."""


def refusing_word(error: RedisError) -> str:
    """Return the error word of Redis with which a refusal begins."""
    text = str(error)
    if _NO_MULTI in text:
        return "NOPERM"
    if _NO_LONGER_MASTER in text:
        return "UNBLOCKED"
    word = text.rpartition(" caused error: ")[2].partition(" ")[0]
    return _REFUSING.get(type(error), word)
