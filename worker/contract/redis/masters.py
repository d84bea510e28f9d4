"""Clients of masters that have to be found: by the slots of a Cluster, or through Sentinels.

The library has such clients too. They send again what a lost connection may have carried out, let
nothing wait for replicas on the connection that wrote, and refuse scripts in a Cluster's pipeline.

Here a plain client of each server sends what is the server's. Where a server refuses that because
another one is the master by now, it had no effect, and goes to the other one; what may have had an
effect is never sent again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any, ClassVar, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - the library's
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the library's
    TryAgainError,
)

from segrelay.worker.contract.keys import FORMAT, node_instance_id
from segrelay.worker.contract.redis.client import (
    AsyncPipeline,
    AsyncRedis,
    NoMaster,
    Pipeline,
    Redis,
    done,
    first_raised,
    is_master_no_longer,
    redis_errors,
    refusing_word,
    run_through,
)
from segrelay.worker.contract.redis.url import RedisAddress, RedisNode
from segrelay.worker.errors import RedisMismatch

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS
HOME: Final = key_slot(FORMAT.encode())
"""The slot of the keys that all partitions share; commands without a key go to its node."""
READS: Final = frozenset(
    (
        *("EXISTS", "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LLEN"),
        *("LRANGE", "MGET", "PING", "SCARD", "SMEMBERS", "TIME", "XLEN", "XRANGE"),
        *("XREVRANGE", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE", "HVALS", "PTTL"),
        *("EVAL_RO", "EVALSHA_RO", "MULTI", "EXEC"),
    )
)
"""Commands that change no data, so they may be repeated on a new master; not SCAN with its cursor.
A MULTI holds nothing that is not named here itself."""
_KEYLESS: Final = frozenset({"PING", "TIME"})
_OF_ONE_SERVER: Final = frozenset(
    {"CONFIG GET", "CONFIG SET", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "KEYS", "SCAN"}
)
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})
_SCRIPT_KEY: Final = 3
_UNKNOWN_HOSTS: Final = ("", "?")
_INSTANCES: Final = 1_024
"""The number of keys for nodes' instance ids: a master with 1 % of the slots has ten of them."""

Command = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The words of a command, and the client library's options for its answer."""


@dataclass(slots=True)
class Masters:
    """The masters, as a node of a Cluster or a Sentinel has told.

    Args:
        owners: The master of each slot, None where no node has it; through Sentinels, the only one.
        nodes: All nodes of a Cluster, replicas too.
    """

    owners: list[RedisNode | None]
    nodes: tuple[RedisNode, ...] = ()

    @property
    def all(self) -> tuple[RedisNode, ...]:
        """All masters, in the order of their first slots, which a failover does not change."""
        return tuple(dict.fromkeys(owner for owner in self.owners if owner))

    def owner(self, slot: int) -> RedisNode:
        """Return the master of a slot.

        Raises:
            NoMaster: There is none.
        """
        owner = self.owners[slot]
        if owner is None:
            raise NoMaster(f"has no node for slot {slot}")
        return owner


def read_slots(answer: Iterable[Any], asked: RedisNode) -> Masters:
    """Read the answer to CLUSTER SLOTS.

    Args:
        answer: The list of ranges of slots with their nodes, as Redis gives it.
        asked: The node that gave it; it may not know under which host itself is reached.
    """
    known = Masters([None] * SLOTS)
    nodes: dict[RedisNode, None] = {}
    for first, last, *servers in answer:
        told = [((host or b"").decode(), int(port)) for host, port, *_ in servers]
        found = [RedisNode(asked.host if h in _UNKNOWN_HOSTS else h, port) for h, port in told]
        nodes |= dict.fromkeys(found)
        known.owners[first : last + 1] = [found[0]] * (last + 1 - first)
    known.nodes = tuple(nodes)
    return known


def slot_of(words: Sequence[Any]) -> int:
    """Return the slot of a command's first key; all its keys have one slot.

    Raises:
        NotImplementedError: It is about one server, and has no key.
    """
    name = words[0]
    if name in _KEYLESS:
        return HOME
    if name in _OF_ONE_SERVER:
        raise NotImplementedError(f"{name} is about one server only: ask a master (`masters`).")
    at = 1
    if name in _SCRIPTS:
        at = _SCRIPT_KEY
    elif name == "XREAD":
        at = words.index("STREAMS") + 1
    key = words[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _units(places: Iterable[int], names: Sequence[Any]) -> list[list[int]]:
    """Return the positions of commands that go to a server together: one, or MULTI to EXEC."""
    units: list[list[int]] = []
    is_open = False
    for at in places:
        if is_open:
            units[-1].append(at)
        else:
            units.append([at])
        is_open = names[at] != "EXEC" and (is_open or names[at] == "MULTI")
    return units


def _least(answers: Sequence[Any]) -> Any:
    """Return the first error, or the answer with the fewest replicas."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    return errors[0] if errors else min(answers, key=lambda confirmed: confirmed[1:])


QUICK_SECONDS: Final = 1.0
"""Seconds in which a node or a Sentinel has to tell the masters; then another one is asked."""
_LOOK_SECONDS: Final = 0.2
_PAUSE_SECONDS: Final = 0.05
_LOST: Final = (ConnectionError, TimeoutError)
# Each server that gets anything gets these too, behind everything else.
_WAIT: Final = "WAITAOF"


@dataclass(slots=True, eq=False)
class Router:
    """Sends commands to the masters, which both clients share.

    It is written as coroutines. With synchronous connections nothing in them waits for an event
    loop, so that `run_through` runs them like functions.

    Args:
        address: The address of a Cluster or of Sentinels.
        connect: A function that makes a client of one server.
        ask: A function that makes a client of a node or a Sentinel, with a short patience.
        sleep: A function that waits so many seconds.
        together: A function that runs coroutines at once, and returns their results.
        moving_seconds: The time for which a slot that is being moved is waited for.
        away_seconds: The time for which what surely had no effect is tried, while a master is away.
    """

    question: ClassVar[str]
    nobody: ClassVar[str]

    address: RedisAddress
    connect: Callable[[RedisNode], Any]
    ask: Callable[[RedisNode], Any]
    sleep: Callable[[float], Any]
    together: Callable[[Sequence[Coroutine[Any, Any, Any]]], Any]
    moving_seconds: float = 0.0
    away_seconds: float = 0.0
    _servers: dict[RedisNode, Any] = field(default_factory=dict)
    _known: Masters | None = None
    _seen: tuple[RedisNode, ...] = ()

    async def run(self, commands: Sequence[Command], *, in_multi: bool = False) -> list[Any]:
        """Run commands and return their answers, refusals among them.

        Raises:
            ConnectionError: A server was lost; whether it has run what it was sent, nobody knows.
        """
        gives_up_at = time.monotonic() + self.away_seconds
        only_reads = all(words[0] in READS for words, _ in commands)
        answers: list[Any] = [None] * len(commands)
        names = [words[0] for words, _ in commands]
        shared: dict[int, list[Any]] = {at: [] for at, name in enumerate(names) if name == _WAIT}
        left = own = _units([at for at in range(len(commands)) if at not in shared], names)
        while left:
            is_sent = False
            try:
                groups = await self._reached(commands, left)
                is_sent = True
                places = [[*chain(*some), *shared] for some in groups.values()]
                asked = [
                    self._asked(node, [commands[at] for at in some], in_multi=in_multi)
                    for node, some in zip(groups, places, strict=True)
                ]
                found = [await asked[0]] if len(asked) == 1 else await done(self.together(asked))
            except AuthenticationError:
                raise
            except _LOST:
                self._known = None
                is_harmless = only_reads or not is_sent
                if not is_harmless or time.monotonic() >= gives_up_at:
                    raise
                left = own if is_sent else left
                await done(self.sleep(_LOOK_SECONDS))
                continue
            refused: list[list[int]] = []
            for units, place, told in zip(groups.values(), places, found, strict=True):
                for at, answer in zip(place, told, strict=True):
                    answers[at] = answer
                again = [u for u in units if any(self.is_elsewhere(answers[at]) for at in u)]
                refused += again
                # What a server says that has run nothing says nothing of what was written.
                for at in shared if len(again) < len(units) else ():
                    shared[at].append(answers[at])
            left = self.going_again(left, refused, names)
            if left or any(map(is_master_no_longer, answers)):
                self._known = None
            if left and time.monotonic() >= gives_up_at + self.moving_seconds:
                break
            if left:
                await done(self.sleep(_PAUSE_SECONDS))
        for at in chain(*left):
            answers[at] = self.given_up(answers[at])
        for at, heard in shared.items():
            answers[at] = _least(heard) if heard else answers[at]
        return answers

    async def _reached(
        self, commands: Sequence[Command], left: Iterable[list[int]]
    ) -> dict[RedisNode, list[list[int]]]:
        """Return which server gets which commands, once each is connected; nothing is sent yet."""
        known = self._known or await self.find()
        groups: dict[RedisNode, list[list[int]]] = {}
        for unit in left:
            words, _ = commands[unit[:2][-1]]
            groups.setdefault(known.owner(self.slot(words)), []).append(unit)
        for node in groups:
            pool = self.server(node).connection_pool
            await done(pool.release(await done(pool.get_connection())))
        return groups

    async def _asked(self, node: RedisNode, commands: list[Command], *, in_multi: bool) -> Any:
        pipe = self.server(node).pipeline(transaction=in_multi)
        pipe.command_stack = commands
        try:
            return await done(pipe.run())
        except ResponseError as error:
            if not in_multi:
                raise
            return [error] * len(commands)  # refused while it was queued: nothing of it was run

    def going_again(
        self, _: list[list[int]], refused: list[list[int]], _names: list[Any]
    ) -> list[list[int]]:
        """Return the commands to send again: those that were refused."""
        return refused

    def slot(self, _: Sequence[Any]) -> int:
        """Return the slot of a command; through Sentinels there is one."""
        return 0

    def is_elsewhere(self, answer: Any) -> bool:
        """Say whether a command was not run, since its server is not, or no longer, its master."""
        raise NotImplementedError

    def given_up(self, answer: Any) -> Any:
        """Return the answer to a command that no server has run, from its refusal."""
        return answer

    def read(self, answer: Any, asked: RedisNode) -> Masters:
        """Read the answer to the question for the masters."""
        raise NotImplementedError

    def why(self, error: RedisError, asked: RedisNode) -> Exception | None:
        """Return why no master is found, if the error of a node tells it; None = it does not."""
        raise NotImplementedError

    def server(self, node: RedisNode) -> Any:
        """Return the client of one server."""
        if node not in self._servers:
            self._servers.setdefault(node, self.connect(node))
        return self._servers[node]

    async def find(self) -> Masters:
        """Ask one node or Sentinel after the other for the masters."""
        silence: Exception = NoMaster(self.nobody)
        seen = random.sample(self._seen, len(self._seen))
        for node in dict.fromkeys((*seen, *self.address.hosts)):
            quick = self.ask(node)
            try:
                known = self.read(await done(quick.run_command(self.question)), node)
            except (*_LOST, ResponseError) as error:
                silence = self.why(error, node) or silence
            else:
                self._known, self._seen = known, known.nodes
                return known
            finally:
                await done(quick.connection_pool.disconnect())
        raise silence

    async def close(self) -> None:
        for server in self._servers.values():
            with suppress(RedisError):
                await done(server.connection_pool.disconnect())


class ClusterRouter(Router):
    """Sends commands to the masters of their slots."""

    question = "CLUSTER SLOTS"
    nobody = "names no node"

    def slot(self, words: Sequence[Any]) -> int:
        return slot_of(words)

    def is_elsewhere(self, answer: Any) -> bool:
        """Say whether a command was not run: a slot has moved, or moves with its keys."""
        return isinstance(answer, AskError | TryAgainError | ClusterDownError)

    def given_up(self, _: Any) -> Exception:
        """Return the answer to a command that no node has run."""
        return NoMaster("has no node now that answers for a slot: it moves, or its master is down")

    def read(self, answer: Any, asked: RedisNode) -> Masters:
        return read_slots(answer, asked)

    def why(self, error: RedisError, asked: RedisNode) -> Exception:
        if "cluster support disabled" not in str(error):
            return error
        return RedisMismatch(
            f"Redis at {asked} can't be used: it is no Cluster; write redis:// in redis.url."
        )


class SentinelRouter(Router):
    """Sends commands to the master that Sentinels name.

    A connection to a server that is no master is refused at once, see `as_master`: it would read
    what is old, and a replica refuses no script that finds everything written already.
    """

    question = "SENTINEL MASTERS"

    @property
    def nobody(self) -> str:  # type: ignore[override]
        """Return the reason why no master is found, for when no Sentinel says more."""
        return (
            f"can't be found: no Sentinel that can be reached knows a master"
            f" `{self.address.service}`; see that they run, and that redis.url names their hosts"
            " and the master rightly"
        )

    def is_elsewhere(self, answer: Any) -> bool:
        """Say whether a write was refused by a replica, or by a master with too few replicas."""
        words = {"READONLY", "NOREPLICAS"}
        return isinstance(answer, ResponseError) and refusing_word(answer) in words

    def going_again(
        self, left: list[list[int]], refused: list[list[int]], names: list[Any]
    ) -> list[list[int]]:
        """Return the commands that were refused, and with them what was read beside them."""
        reads = [each for each in left if all(names[at] in READS for at in each)]
        return [each for each in left if each in refused or each in reads] if refused else []

    def read(self, answer: Any, _: RedisNode) -> Masters:
        """Read the address of the master."""
        state = answer.get(self.address.service)
        if not state:
            raise NoMaster(self.nobody)
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            raise NoMaster(
                f"has no master now: the Sentinels say that `{self.address.service}` is down, and"
                " no replica has taken its place yet"
            )
        return Masters([RedisNode(state["ip"], state["port"])])

    def why(self, error: RedisError, _: RedisNode) -> Exception | None:
        """Return what a Sentinel says of the master, or that it refuses us; it may be away."""
        if isinstance(error, AuthenticationError | NoPermissionError):
            return NoMaster(
                "can't be found: its Sentinels refuse the user name or password; correct"
                " sentinel_username and sentinel_password in redis.url"
            )
        return error if isinstance(error, NoMaster) else None


async def as_master(connection: Any) -> None:
    """Begin a connection, unless its server is a replica.

    Raises:
        NoMaster: It is one.
    """
    await done(connection.on_connect())
    await done(connection.send_command("INFO", "replication"))
    if b"role:master" not in await done(connection.read_response()):
        raise NoMaster("is no longer the master, and the new one is not known yet")


def in_threads(asked: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines of synchronous clients at once; return their results when all have ended."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(run_through, asked))


async def in_tasks(asked: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines at once; return their results when all have ended."""
    return first_raised(list(await asyncio.gather(*asked, return_exceptions=True)))


class RoutedRedis(Redis):
    """A client of all masters; each gets its own commands of a pipeline together.

    Attributes:
        router: The router, which finds the masters.
    """

    def __init__(self, router: Router) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self.router = router
        self.is_cluster = router.address.is_cluster

    def run_command(self, *words: Any, **options: Any) -> Any:
        return first_raised(run_through(self.router.run([(words, options)])))[0]

    def run_pipeline(self, pipe: Pipeline) -> list[Any]:
        commands, in_multi = _taken_from(pipe, pipe.transaction, self.is_cluster)
        return run_through(self.router.run(commands, in_multi=in_multi))

    def _found(self) -> Masters:
        with redis_errors(self.where):
            return run_through(self.router.find())

    def masters(self) -> list[tuple[str, Redis]]:
        """Return all masters of a Cluster as they are now, each with a client of its own."""
        if not self.is_cluster:
            return super().masters()
        return [(str(node), self.router.server(node)) for node in self._found().all]

    def keys_of_masters(self) -> dict[str, str]:
        """Return the key of each master's instance id in a Cluster, with the master's address."""
        if not self.is_cluster:
            return super().keys_of_masters()
        known = self._found()
        owners = {known.owners[slot]: name for name, slot in _spread_keys()}
        return {owners[node]: str(node) for node in known.all if node in owners}

    def close(self) -> None:
        run_through(self.router.close())


@cache
def _spread_keys() -> tuple[tuple[str, int], ...]:
    """Return the keys of nodes' instance ids with their slots, spread over all masters."""
    names = map(node_instance_id, reversed(range(_INSTANCES)))
    return tuple((name, key_slot(name.encode())) for name in names)


class AsyncRoutedRedis(AsyncRedis):
    """An asynchronous client of all masters; see `RoutedRedis`."""

    def __init__(self, router: Router) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self.router = router
        self.is_cluster = router.address.is_cluster

    async def run_command(self, *words: Any, **options: Any) -> Any:
        return first_raised(await self.router.run([(words, options)]))[0]

    async def run_pipeline(self, pipe: AsyncPipeline) -> list[Any]:
        commands, in_multi = _taken_from(pipe, pipe.is_transaction, self.is_cluster)
        return await self.router.run(commands, in_multi=in_multi)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in the library
        await super().aclose(close_connection_pool)
        await self.router.close()


def _taken_from(pipe: Any, in_multi: Any, is_cluster: bool) -> tuple[list[Command], bool]:  # noqa: FBT001 - private
    if in_multi and is_cluster:
        raise NotImplementedError("A Cluster has no transactions over several slots: use a script.")
    commands, pipe.command_stack = pipe.command_stack, []
    return list(commands), bool(in_multi)
