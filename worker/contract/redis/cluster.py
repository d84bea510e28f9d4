"""Clients of a Redis Cluster, which send each command to the master of its slot.

The library has such clients too. They send again what a lost connection may have carried out, let
nothing wait for replicas on the connection that wrote, and refuse scripts in a pipeline.

`ClusterExchange` decides which node gets which command, and what is sent again, without input or
output; the clients send what it says, and tell it the answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

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
_KEYLESS: Final = frozenset({"CONFIG GET", "CONFIG SET", "PING", "TIME", "CLUSTER"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})
_SCRIPT_KEY: Final = 3
_UNKNOWN_HOSTS: Final = ("", "?")

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


class ClusterNodes:
    """The nodes that a client knows, and the order in which it asks them for the slots.

    Args:
        address: Of the Cluster.
        away_seconds: The time for which what surely had no effect is tried, while a master is away.
    """

    def __init__(self, address: RedisAddress, away_seconds: float) -> None:
        self.address = address
        self.away_seconds = away_seconds
        self.known: SlotMap | None = None
        self.silence: Exception = NoOwner("names no node")
        self._seen: tuple[RedisNode, ...] = ()
        self._failed: RedisNode | None = None

    def to_ask(self) -> list[RedisNode]:
        """Return the nodes that can tell the slots, in the order in which they are asked."""
        seen = random.sample(self._seen, len(self._seen))
        nodes = dict.fromkeys((*seen, *self.address.hosts))
        return sorted(nodes, key=lambda node: node == self._failed)

    def told(self, answer: Iterable[Any], asked: RedisNode) -> SlotMap:
        """Keep the slots that a node has told, and return them."""
        self.known = read_slots(answer, asked, self.address.outside)
        self._seen = self.known.nodes
        return self.known

    def lost(self, node: RedisNode) -> None:
        """Note that a node does not answer, so that the slots are asked for anew."""
        self.known, self._failed = None, node

    @contextmanager
    def asking(self, node: RedisNode) -> Iterator[None]:
        """Guard a question to a node for the slots; the error of a lost one becomes `silence`.

        Raises:
            RedisMismatch: It is a server that knows no slots.
        """
        try:
            yield
        except redis.exceptions.AuthenticationError:
            raise
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            self.silence = error
        except redis.exceptions.ResponseError as error:
            if "cluster support disabled" not in str(error):
                raise
            raise RedisMismatch(
                f"Redis at {node} can't be used: it is no Cluster; write redis:// in redis.url."
            ) from None


NODE_SECONDS: Final = 1.0
"""Seconds in which a node has to tell the slots; then another one is asked."""
_REFERRED_SECONDS: Final = 5.0
"""Seconds for which commands that no node has run are tried again, while a slot moves."""
_PAUSE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.2
_LOST: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, NoOwner)

_ASKING: Final = ("ASKING",)
_NO_TRANSACTION: Final = "A Cluster has no transactions over keys of several slots: use a script."
_NO_SCAN: Final = "A cursor counts in one server only: see worker/contract/redis/scanning.py."


class _ClusterPipeline(Pipeline):
    """A pipeline over several nodes, each of which gets its own commands together."""

    def __init__(self, client: ClusterClient) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)  # noqa: FBT003 - as in the library
        self._client = client

    def run(self, *, raise_on_error: bool) -> list[Any]:
        answers = self._client.run(self.command_stack)
        self.reset()
        return _first_raised(answers) if raise_on_error else answers


class ClusterClient(Redis):
    """A client of all masters of a Cluster.

    Args:
        address: Of the Cluster.
        server: Makes a client of one node; with how long its answers may take.
        away_seconds: The time for which what surely had no effect is tried, while a master is away.
    """

    def __init__(
        self,
        address: RedisAddress,
        server: Callable[[RedisNode, float], Redis],
        *,
        timeout_seconds: float,
        away_seconds: float = 0.0,
    ) -> None:
        first = server(address.hosts[0], timeout_seconds)
        super().__init__(connection_pool=first.connection_pool)
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._nodes = ClusterNodes(address, away_seconds)
        self._servers: dict[RedisNode, Redis] = {}

    def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command on the master of its key, or on all masters if it is about all."""
        return _first_raised(self.run([(words, options)]))[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _ClusterPipeline:  # noqa: ARG002, FBT001, FBT002 - as in the library
        """Return a pipeline over all masters."""
        if transaction:
            raise NotImplementedError(_NO_TRANSACTION)
        return _ClusterPipeline(self)

    def scan(self, *_words: Any, **_options: Any) -> Any:
        """Refuse to scan, since a cursor is valid on one server only."""
        raise NotImplementedError(_NO_SCAN)

    def masters(self) -> list[tuple[RedisNode, Redis]]:
        """Return all masters as they are now, each with a client of its own."""
        with redis_errors(self.where):
            return [(node, self.server(node)) for node in self._asked_slots().masters]

    def run(self, commands: Sequence[Any]) -> list[Any]:
        """Run commands and return their answers, refusals among them.

        Raises:
            ConnectionError: A node was lost; whether it has run what it was sent, nobody knows.
        """
        gives_up_at = time.monotonic() + self._nodes.away_seconds
        only_reads = all(words[0] in READS for words, _ in commands)
        while True:
            exchange = ClusterExchange.of(SlotMap([]), commands)
            try:
                return self._exchanged(exchange)
            except redis.exceptions.AuthenticationError:
                raise
            except _LOST:
                harmless = only_reads or not exchange.has_begun
                if not harmless or time.monotonic() >= gives_up_at:
                    raise
            time.sleep(_LOOK_SECONDS)

    def _exchanged(self, exchange: ClusterExchange) -> list[Any]:
        ends_at = time.monotonic() + _REFERRED_SECONDS
        exchange.known = self._known_slots()
        while True:
            self._send_round(exchange)
            if not exchange.end_round():
                return exchange.answers()
            if time.monotonic() >= ends_at:
                exchange.give_up()
                return exchange.answers()
            if exchange.must_pause:
                time.sleep(_PAUSE_SECONDS)
            if exchange.is_down:
                exchange.known = self._asked_slots()

    def _send_round(self, exchange: ClusterExchange) -> None:
        """Send the commands to all nodes first, and then read the answers of each."""
        groups = exchange.groups()
        links: dict[RedisNode, Any] = {}
        at = None
        try:
            for at in groups:
                links[at] = self.server(at).connection_pool.get_connection()
            exchange.has_begun = True
            for at, calls in groups.items():
                links[at].send_packed_command(links[at].pack_commands(_words(calls)))
            for at in tuple(links):
                self._read(exchange, at, groups[at], links[at])
                self.server(at).connection_pool.release(links.pop(at))
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            if at is not None:
                self._nodes.lost(at)
            raise
        finally:
            for node, link in links.items():
                link.disconnect()
                self.server(node).connection_pool.release(link)

    def _read(
        self, exchange: ClusterExchange, node: RedisNode, calls: Iterable[RoutedCall], link: Any
    ) -> None:
        server = self.server(node)
        for call in calls:
            try:
                if call.asking:
                    link.read_response()
                answer = server.parse_response(link, call.words[0], **call.options)  # type: ignore[no-untyped-call]
            except redis.exceptions.ResponseError as error:
                answer = error
            exchange.take(node, call, answer)

    def server(self, node: RedisNode) -> Redis:
        """Return the client of one node."""
        found = self._servers.get(node)
        if found is None:
            found = self._servers.setdefault(node, self._server(node, self._timeout_seconds))
        return found

    def slots(self) -> SlotMap:
        """Return the slots as last seen, or ask for them anew if a node was lost since."""
        with redis_errors(self.where):
            return self._known_slots()

    def _known_slots(self) -> SlotMap:
        return self._nodes.known or self._asked_slots()

    def _asked_slots(self) -> SlotMap:
        for node in self._nodes.to_ask():
            with (
                closing(self._server(node, min(NODE_SECONDS, self._timeout_seconds))) as quick,
                self._nodes.asking(node),
            ):
                answer = quick.run_command("CLUSTER", "SLOTS")
                return self._nodes.told(answer, node)
        raise self._nodes.silence

    def close(self) -> None:
        """Close the connections to all nodes."""
        super().close()
        for server in self._servers.values():
            server.close()


class _AsyncClusterPipeline(AsyncPipeline):
    """The asynchronous form of `_ClusterPipeline`."""

    def __init__(self, client: AsyncClusterClient) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)  # noqa: FBT003 - as in the library
        self._client = client

    async def run(self, *, raise_on_error: bool) -> list[Any]:
        answers = await self._client.run(self.command_stack)
        await self.reset()  # type: ignore[no-untyped-call]
        return _first_raised(answers) if raise_on_error else answers


class AsyncClusterClient(AsyncRedis):
    """An asynchronous client of all masters of a Cluster; see `ClusterClient`."""

    keeps_order = False

    def __init__(
        self,
        address: RedisAddress,
        server: Callable[[RedisNode, float], AsyncRedis],
        *,
        timeout_seconds: float,
    ) -> None:
        first = server(address.hosts[0], timeout_seconds)
        super().__init__(connection_pool=first.connection_pool)
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._nodes = ClusterNodes(address, 0.0)
        self._servers: dict[RedisNode, AsyncRedis] = {}

    async def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command; see `ClusterClient.run_command`."""
        return _first_raised(await self.run([(words, options)]))[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _AsyncClusterPipeline:  # noqa: ARG002, FBT001, FBT002 - as in the library
        """Return a pipeline over all masters."""
        if transaction:
            raise NotImplementedError(_NO_TRANSACTION)
        return _AsyncClusterPipeline(self)

    async def run(self, commands: Sequence[Any]) -> list[Any]:
        """Run commands as `ClusterClient.run` does, without waiting for a master that is away."""
        known = self._nodes.known or await self._asked_slots()
        exchange = ClusterExchange.of(known, commands)
        ends_at = time.monotonic() + _REFERRED_SECONDS
        while True:
            await self._send_round(exchange)
            if not exchange.end_round():
                return exchange.answers()
            if time.monotonic() >= ends_at:
                exchange.give_up()
                return exchange.answers()
            if exchange.must_pause:
                await asyncio.sleep(_PAUSE_SECONDS)
            if exchange.is_down:
                exchange.known = await self._asked_slots()

    async def _send_round(self, exchange: ClusterExchange) -> None:
        groups = exchange.groups()
        talks = [self._talk(exchange, node, calls) for node, calls in groups.items()]
        if len(talks) == 1:
            await talks[0]
            return
        for lost in await asyncio.gather(*talks, return_exceptions=True):
            if lost:
                raise lost

    async def _talk(
        self, exchange: ClusterExchange, node: RedisNode, calls: Sequence[RoutedCall]
    ) -> None:
        """Send a node its commands, and read its answers."""
        pool = self.server(node).connection_pool
        link: Any = None
        done = False
        try:
            link = await pool.get_connection()  # type: ignore[no-untyped-call]
            await link.send_packed_command(link.pack_commands(_words(calls)))
            await self._read(exchange, node, calls, link)
            done = True
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._nodes.lost(node)
            raise
        finally:
            if link:
                if not done:
                    await link.disconnect(nowait=True)
                await pool.release(link)

    async def _read(
        self, exchange: ClusterExchange, node: RedisNode, calls: Iterable[RoutedCall], link: Any
    ) -> None:
        server = self.server(node)
        for call in calls:
            try:
                if call.asking:
                    await link.read_response()
                answer = await server.parse_response(link, call.words[0], **call.options)
            except redis.exceptions.ResponseError as error:
                answer = error
            exchange.take(node, call, answer)

    def server(self, node: RedisNode) -> AsyncRedis:
        """Return the client of one node."""
        found = self._servers.get(node)
        if found is None:
            found = self._servers[node] = self._server(node, self._timeout_seconds)
        return found

    async def _asked_slots(self) -> SlotMap:
        for node in self._nodes.to_ask():
            async with self._server(node, min(NODE_SECONDS, self._timeout_seconds)) as quick:
                with self._nodes.asking(node):
                    answer = await quick.run_command("CLUSTER", "SLOTS")
                    return self._nodes.told(answer, node)
        raise self._nodes.silence

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in the library
        """Close the connections to all nodes."""
        await super().aclose(close_connection_pool)
        for server in self._servers.values():
            with suppress(redis.exceptions.RedisError):
                await server.aclose()


def _words(calls: Iterable[RoutedCall]) -> list[tuple[Any, ...]]:
    return [words for call in calls for words in (*((_ASKING,) if call.asking else ()), call.words)]


def _first_raised(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
