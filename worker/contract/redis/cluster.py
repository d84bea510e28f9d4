"""Clients of a Redis Cluster, which send each command to the master of its slot.

The library has such clients too. They send again what a lost connection may have carried out, let
nothing wait for replicas on the connection that wrote, and refuse scripts in a pipeline.

`ClusterExchange` decides which node gets which command, and what is sent again, without input or
output; `ClusterRouter` sends what it says, and tells it the answers.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import redis.exceptions
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError

from segrelay.worker.contract.keys import FORMAT
from segrelay.worker.contract.redis.client import (
    AsyncPipeline,
    AsyncRedis,
    NoOwner,
    Pipeline,
    Redis,
    redis_errors,
)
from segrelay.worker.contract.redis.sentinels import READS
from segrelay.worker.contract.redis.url import RedisAddress, RedisNode
from segrelay.worker.errors import RedisMismatch

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS
HOME: Final = key_slot(FORMAT.encode())
"""The slot of the keys that all partitions share; commands without a key go to its node."""
_WAIT: Final = "WAITAOF"
_LOAD: Final = "SCRIPT LOAD"
_TO_ALL: Final = frozenset({"DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "KEYS", _LOAD})
_KEYLESS: Final = frozenset({"CONFIG GET", "CONFIG SET", "PING", "TIME"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})
_SCRIPT_KEY: Final = 3
_UNKNOWN_HOSTS: Final = ("", "?")

_T = TypeVar("_T")
Command = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The words of a command, and the client library's options for its answer."""


@dataclass(slots=True)
class SlotMap:
    """The masters of the Cluster and their slots, as a node has told.

    Args:
        owners: The master of each slot; None where no node has it.
        nodes: All nodes, replicas too.
        outside: The address at which a node is reached from here, by the address that the Cluster
            tells.
    """

    owners: list[RedisNode | None]
    nodes: tuple[RedisNode, ...] = ()
    outside: Mapping[RedisNode, RedisNode] = field(default_factory=dict)

    @property
    def masters(self) -> tuple[RedisNode, ...]:
        """All masters, in the order of their first slots, which a failover does not change."""
        return tuple(dict.fromkeys(owner for owner in self.owners if owner))

    def owner(self, slot: int) -> RedisNode:
        """Return the master of a slot.

        Raises:
            NoOwner: There is none.
        """
        owner = self.owners[slot]
        if owner is None:
            raise NoOwner(f"has no node for slot {slot}")
        return owner

    def outside_of(self, host: str, port: int) -> RedisNode:
        """Return the address at which this machine reaches a node that the Cluster names."""
        node = RedisNode(host, port)
        return self.outside.get(node, node)


def read_slots(
    answer: Iterable[Any], asked: RedisNode, outside: Mapping[RedisNode, RedisNode]
) -> SlotMap:
    """Read the answer to CLUSTER SLOTS.

    Args:
        answer: As it comes.
        asked: The node that gave it; it may not know under which host it is reached.
        outside: See `SlotMap`.
    """
    known = SlotMap([None] * SLOTS, outside=outside)
    nodes: dict[RedisNode, None] = {}
    for first, last, *servers in answer:
        found = [_node(known, server, asked) for server in servers]
        nodes |= dict.fromkeys(found)
        known.owners[first : last + 1] = [found[0]] * (last + 1 - first)
    known.nodes = tuple(nodes)
    return known


def _node(known: SlotMap, server: Sequence[Any], asked: RedisNode) -> RedisNode:
    host = (server[0] or b"").decode()
    return known.outside_of(asked.host if host in _UNKNOWN_HOSTS else host, int(server[1]))


def slot_of(words: Sequence[Any]) -> int:
    """Return the slot of a command's first key; all its keys have one slot."""
    name = words[0]
    if name in _KEYLESS:
        return HOME
    at = 1
    if name in _SCRIPTS:
        at = _SCRIPT_KEY
    elif name == "XREAD":
        at = words.index("STREAMS") + 1
    key = words[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


@dataclass(slots=True)
class RoutedCall:
    """One command of a `ClusterExchange`, with its slot and the answers to it.

    Args:
        at: Its place among them.
        unit: The place of the MULTI that it belongs to, which makes one of several; -1 = none.
        slot: The slot of a MULTI; else the first key tells it.
        asking: The node that takes it although its slot is still being moved there.
        answers: Of the nodes that it went to.
    """

    at: int
    words: tuple[Any, ...]
    options: Mapping[str, Any]
    unit: int = -1
    slot: int = -1
    asking: RedisNode | None = None
    answers: list[Any] = field(default_factory=list)

    @property
    def answer(self) -> Any:
        """The answer to the command, made of all answers if it went to several nodes."""
        for answer in self.answers:
            if isinstance(answer, Exception):
                return answer
        match self.words[0]:
            case "WAITAOF":
                return min(self.answers, key=lambda confirmed: int(confirmed[1]))
            case "DBSIZE":
                return sum(self.answers)
            case "INFO":
                return max(self.answers, key=_fullness)
            case "KEYS":
                return [key for keys in self.answers for key in keys]
        return self.answers[-1]


def _fullness(info: Mapping[str, Any]) -> float:
    return float(info.get("used_memory", 0)) / (float(info.get("maxmemory", 0)) or float("inf"))


@dataclass(slots=True)
class ClusterExchange:
    """Commands that are sent to the nodes of their slots, and again if a node refers to another.

    Waiting for replicas goes to each node to which something was written, on the same connection.
    Scripts are loaded on all masters before, also on one that has just become one.

    Args:
        known: The slots; what nodes say about them is noted there.
        has_begun: Something was sent, and nobody knows what came of it if it ends early.
        must_pause: The nodes need a moment before commands go out again.
        is_down: A node says that the Cluster is down; the slots may have other masters by now.
    """

    known: SlotMap
    calls: list[RoutedCall]
    left: list[RoutedCall] = field(default_factory=list)
    has_begun: bool = False
    must_pause: bool = False
    is_down: bool = False

    @classmethod
    def of(cls, known: SlotMap, commands: Iterable[Command]) -> ClusterExchange:
        """Return a new exchange of these commands."""
        calls = [RoutedCall(at, words, options) for at, (words, options) in enumerate(commands)]
        begun = -1
        for call in calls:
            if call.words[0] == "MULTI":
                begun = call.at
            elif call.words[0] == "EXEC":
                slot = slot_of(calls[begun + 1].words)
                for one in calls[begun : call.at + 1]:
                    one.unit, one.slot = begun, slot
        return cls(known, calls, list(calls))

    def groups(self) -> dict[RedisNode, list[RoutedCall]]:
        """Return the commands that are sent next, by node; after the last round there are none."""
        groups: dict[RedisNode, list[RoutedCall]] = {}
        for call in self.left:
            for node in self._targets(call, groups):
                groups.setdefault(node, []).append(call)
        self.left, self.must_pause, self.is_down = [], False, False
        return groups

    def _targets(self, call: RoutedCall, groups: Mapping[RedisNode, Any]) -> Sequence[RedisNode]:
        name = call.words[0]
        if name == _WAIT:
            return tuple(groups)
        if name in _TO_ALL:
            return self.known.masters
        if call.asking:
            return (call.asking,)
        return (self.known.owner(call.slot if call.unit >= 0 else slot_of(call.words)),)

    def take(self, node: RedisNode, call: RoutedCall, answer: Any) -> None:
        """Keep a node's answer, or note that the command was not run and has to be sent again."""
        match answer:
            case MovedError():
                call.asking = None
                self.known.owners[answer.slot_id] = self._named(node, answer)
            case AskError() if call.unit >= 0:
                self.must_pause = True  # of its keys, some may be here and some there
            case AskError():
                call.asking = self._named(node, answer)
            case TryAgainError():
                self.must_pause = True
            case ClusterDownError():
                self.must_pause = self.is_down = True
            case NoScriptError() if self._named_as(_LOAD):
                self.must_pause = True
            case _:
                call.answers.append(answer)
                return
        self.left.append(call)

    def _named(self, node: RedisNode, answer: AskError) -> RedisNode:
        host = node.host if answer.host in _UNKNOWN_HOSTS else answer.host
        return self.known.outside_of(host, answer.port)

    def end_round(self) -> bool:
        """Say whether commands have to be sent again, and add the scripts and waits they need."""
        if not self.left:
            return False
        units = {call.unit for call in self.left if call.unit >= 0}
        of_units = [call for call in self.calls if call.unit in units]
        for call in of_units:
            call.answers.clear()
        needed = (*self._named_as(_LOAD), *of_units, *self._named_as(_WAIT))
        again = {call.at for call in (*self.left, *needed)}
        self.left = [call for call in self.calls if call.at in again]
        return True

    def _named_as(self, name: str) -> list[RoutedCall]:
        return [call for call in self.calls if call.words[0] == name]

    def give_up(self) -> None:
        """Put an error in the place of answers to commands that no node has taken in time."""
        why = "has no node now that answers for a slot: it moves, or its master is down"
        for call in self.left:
            call.answers.append(NoOwner(why))
        self.left = []

    def answers(self) -> list[Any]:
        """Return the answers in the order of the commands; errors of a node are among them."""
        return [call.answer for call in self.calls]


NODE_SECONDS: Final = 1.0
"""Seconds in which a node has to tell the slots; then another one is asked."""
_REFERRED_SECONDS: Final = 5.0
"""Seconds for which commands that no node has run are tried again, while a slot moves."""
_PAUSE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.2
_LOST: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)

_ASKING: Final = ("ASKING",)
_NO_TRANSACTION: Final = "A Cluster has no transactions over keys of several slots: use a script."
_NO_SCAN: Final = "A cursor counts in one server only: see worker/contract/redis/scanning.py."


@dataclass(slots=True, eq=False)
class ClusterRouter:
    """The exchange of commands with the nodes, which both clients share.

    It is written as coroutines. With synchronous connections nothing in them waits for an event
    loop, so that `_run_through` runs them like functions.

    Args:
        address: Of the Cluster.
        connect: Makes a client of one node; with how long its answers may take.
        sleep: Waits so many seconds.
        away_seconds: The time for which what surely had no effect is tried, while a master is away.
    """

    address: RedisAddress
    connect: Callable[[RedisNode, float], Any]
    timeout_seconds: float
    sleep: Callable[[float], Any]
    away_seconds: float = 0.0
    _servers: dict[RedisNode, Any] = field(default_factory=dict)
    _known: SlotMap | None = None
    _seen: tuple[RedisNode, ...] = ()
    _failed: RedisNode | None = None

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands and return their answers, refusals among them.

        Raises:
            ConnectionError: A node was lost; whether it has run what it was sent, nobody knows.
        """
        gives_up_at = time.monotonic() + self.away_seconds
        only_reads = all(words[0] in READS for words, _ in commands)
        while True:
            exchange = ClusterExchange.of(SlotMap([]), commands)
            try:
                return await self._exchanged(exchange)
            except redis.exceptions.AuthenticationError:
                raise
            except (*_LOST, NoOwner):
                harmless = only_reads or not exchange.has_begun
                if not harmless or time.monotonic() >= gives_up_at:
                    raise
            await _done(self.sleep(_LOOK_SECONDS))

    async def _exchanged(self, exchange: ClusterExchange) -> list[Any]:
        ends_at = time.monotonic() + _REFERRED_SECONDS
        exchange.known = await self.slots()
        while True:
            await self._send_round(exchange)
            if not exchange.end_round():
                return exchange.answers()
            if time.monotonic() >= ends_at:
                exchange.give_up()
                return exchange.answers()
            if exchange.must_pause:
                await _done(self.sleep(_PAUSE_SECONDS))
            if exchange.is_down:
                exchange.known = await self.ask_slots()

    async def _send_round(self, exchange: ClusterExchange) -> None:
        """Send the commands to all nodes first, and then read the answers of each."""
        groups = exchange.groups()
        links: dict[RedisNode, Any] = {}
        at = None
        try:
            for at in groups:
                links[at] = await _done(self.server(at).connection_pool.get_connection())
            exchange.has_begun = True
            for at, calls in groups.items():
                packed = links[at].pack_commands(_words(calls))
                await _done(links[at].send_packed_command(packed))
            for at, calls in groups.items():
                await self._read(exchange, at, calls, links[at])
                await _done(self.server(at).connection_pool.release(links.pop(at)))
        except _LOST:
            self._known, self._failed = None, at
            raise
        finally:
            for node, link in links.items():
                await _done(link.disconnect(nowait=True))
                await _done(self.server(node).connection_pool.release(link))

    async def _read(
        self, exchange: ClusterExchange, node: RedisNode, calls: Iterable[RoutedCall], link: Any
    ) -> None:
        server = self.server(node)
        for call in calls:
            try:
                if call.asking:
                    await _done(link.read_response())
                answer = await _done(server.parse_response(link, call.words[0], **call.options))
            except redis.exceptions.ResponseError as error:
                answer = error
            exchange.take(node, call, answer)

    def server(self, node: RedisNode) -> Any:
        """Return the client of one node."""
        if node not in self._servers:
            self._servers.setdefault(node, self.connect(node, self.timeout_seconds))
        return self._servers[node]

    async def slots(self) -> SlotMap:
        """Return the slots as last seen, or ask for them anew if a node was lost since."""
        return self._known or await self.ask_slots()

    async def ask_slots(self) -> SlotMap:
        """Ask one node after the other for the slots, last the one that was lost."""
        silence: Exception = NoOwner("names no node")
        seen = random.sample(self._seen, len(self._seen))
        nodes = dict.fromkeys((*seen, *self.address.hosts))
        for node in sorted(nodes, key=lambda node: node == self._failed):
            quick = self.connect(node, min(NODE_SECONDS, self.timeout_seconds))
            try:
                answer = await _done(quick.run_command("CLUSTER", "SLOTS"))
            except redis.exceptions.AuthenticationError:
                raise
            except _LOST as error:
                silence = error
                continue
            except redis.exceptions.ResponseError as error:
                if "cluster support disabled" not in str(error):
                    raise
                raise RedisMismatch(
                    f"Redis at {node} can't be used: it is no Cluster; write redis:// in redis.url."
                ) from None
            finally:
                await _close(quick)
            self._known = known = read_slots(answer, node, self.address.outside)
            self._seen = known.nodes
            return known
        raise silence

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for server in self._servers.values():
            with suppress(redis.exceptions.RedisError):
                await _close(server)


async def _done(answer: Any) -> Any:
    """Return what a synchronous or an asynchronous client answers."""
    return await answer if inspect.isawaitable(answer) else answer


async def _close(client: Redis | AsyncRedis) -> None:
    if isinstance(client, AsyncRedis):
        await client.aclose()
    else:
        client.close()


def _run_through(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that waits for nothing, since its connections are synchronous."""
    try:
        steps.send(None)
    except StopIteration as end:
        answer: _T = end.value
        return answer
    raise AssertionError("a synchronous client has waited for an event loop")


class _ClusterPipeline(Pipeline):
    """A pipeline over several nodes, each of which gets its own commands together."""

    router: ClusterRouter

    def run(self, *, raise_on_error: bool) -> list[Any]:
        answers = _run_through(self.router.run(self.command_stack))
        self.reset()
        return _first_raised(answers) if raise_on_error else answers


class ClusterClient(Redis):
    """A client of all masters of a Cluster."""

    def __init__(self, router: ClusterRouter) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self._router = router

    def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command on the master of its key, or on all masters if it is about all."""
        return _first_raised(_run_through(self._router.run([(words, options)])))[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _ClusterPipeline:  # noqa: FBT001, FBT002 - as in the library
        """Return a pipeline over all masters."""
        if transaction:
            raise NotImplementedError(_NO_TRANSACTION)
        pipe = _ClusterPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)  # noqa: FBT003 - as in the library
        pipe.router = self._router
        return pipe

    def scan(self, *_words: Any, **_options: Any) -> Any:
        """Refuse to scan, since a cursor is valid on one server only."""
        raise NotImplementedError(_NO_SCAN)

    def masters(self) -> list[tuple[RedisNode, Redis]]:
        """Return all masters as they are now, each with a client of its own."""
        with redis_errors(self.where):
            known = _run_through(self._router.ask_slots())
        return [(node, self._router.server(node)) for node in known.masters]

    def slots(self) -> SlotMap:
        """Return the slots as last seen, or ask for them anew if a node was lost since."""
        with redis_errors(self.where):
            return _run_through(self._router.slots())

    def close(self) -> None:
        """Close the connections to all nodes."""
        _run_through(self._router.close())


class _AsyncClusterPipeline(AsyncPipeline):
    """The asynchronous form of `_ClusterPipeline`."""

    router: ClusterRouter

    async def run(self, *, raise_on_error: bool) -> list[Any]:
        answers = await self.router.run(self.command_stack)
        await self.reset()  # type: ignore[no-untyped-call]
        return _first_raised(answers) if raise_on_error else answers


class AsyncClusterClient(AsyncRedis):
    """An asynchronous client of all masters of a Cluster; see `ClusterClient`."""

    keeps_order = False

    def __init__(self, router: ClusterRouter) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self._router = router

    async def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command; see `ClusterClient.run_command`."""
        return _first_raised(await self._router.run([(words, options)]))[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _AsyncClusterPipeline:  # noqa: FBT001, FBT002 - as in the library
        """Return a pipeline over all masters."""
        if transaction:
            raise NotImplementedError(_NO_TRANSACTION)
        pipe = _AsyncClusterPipeline(
            self.connection_pool,
            self.response_callbacks,
            False,  # noqa: FBT003 - as in the library
            shard_hint,
        )
        pipe.router = self._router
        return pipe

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in the library
        """Close the connections to all nodes."""
        await super().aclose(close_connection_pool)
        await self._router.close()


def _words(calls: Iterable[RoutedCall]) -> list[tuple[Any, ...]]:
    return [words for call in calls for words in (*((_ASKING,) if call.asking else ()), call.words)]


def _first_raised(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
