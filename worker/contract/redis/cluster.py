"""Clients of a Redis Cluster, which send each command to the master of its slot.

The library has such clients too. They send again what a lost connection may have carried out, let
nothing wait for replicas on the connection that wrote, and refuse scripts in a pipeline.

`ClusterExchange` decides which node gets which command, and what is sent again, without input or
output; `ClusterRouter` sends what it says, and tells it the answers.
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
from itertools import chain, islice
from typing import Any, Final

import redis.exceptions
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from segrelay.worker.contract.keys import FORMAT, node_instance_id
from segrelay.worker.contract.redis.client import (
    AsyncPipeline,
    AsyncRedis,
    NoOwner,
    Pipeline,
    Redis,
    done,
    first_raised,
    redis_errors,
    run_through,
)
from segrelay.worker.contract.redis.sentinels import READS
from segrelay.worker.contract.redis.url import RedisAddress, RedisNode
from segrelay.worker.errors import RedisMismatch

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS
HOME: Final = key_slot(FORMAT.encode())
"""The slot of the keys that all partitions share; commands without a key go to its node."""
_KEYLESS: Final = frozenset({"PING", "TIME"})
_OF_ONE_SERVER: Final = frozenset(
    {"CONFIG GET", "CONFIG SET", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "KEYS", "SCAN"}
)
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})
_SCRIPT_KEY: Final = 3
_UNKNOWN_HOSTS: Final = ("", "?")
_INSTANCES: Final = 1_024
"""The number of keys for nodes' certificates: a master with 1 % of the slots has ten of them."""

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

    def named(self, host: str, port: int, by: RedisNode) -> RedisNode:
        """Return the address at which this machine reaches a node that the Cluster names.

        Args:
            host: Host name or address that the Cluster tells; "" or "?" = it does not know it.
            port: Port that the Cluster tells.
            by: The node that named it; it may not know under which host itself is reached.
        """
        node = RedisNode(by.host if host in _UNKNOWN_HOSTS else host, int(port))
        return self.outside.get(node, node)


def read_slots(
    answer: Iterable[Any], asked: RedisNode, outside: Mapping[RedisNode, RedisNode]
) -> SlotMap:
    """Read the answer to CLUSTER SLOTS.

    Args:
        answer: As it comes.
        asked: The node that gave it.
        outside: See `SlotMap`.
    """
    known = SlotMap([None] * SLOTS, outside=outside)
    nodes: dict[RedisNode, None] = {}
    for first, last, *servers in answer:
        found = [known.named((host or b"").decode(), port, asked) for host, port, *_ in servers]
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
        raise NotImplementedError(f"{name} is about one server only: ask a master (`servers_of`).")
    at = 1
    if name in _SCRIPTS:
        at = _SCRIPT_KEY
    elif name == "XREAD":
        at = words.index("STREAMS") + 1
    key = words[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


@dataclass(slots=True)
class RoutedCall:
    """Commands that go to the master of one slot together: one, or all from a MULTI to its EXEC.

    Args:
        asking: The node that takes it although its slot is still being moved there.
        is_left: It has to be sent, for the first time or again.
        answers: To each of the commands.
    """

    commands: list[Command]
    asking: RedisNode | None = None
    is_left: bool = True
    answers: list[Any] = field(default_factory=list)

    @property
    def sent(self) -> list[Command]:
        """The commands as they are sent."""
        return [(("ASKING",), {}), *self.commands] if self.asking else self.commands

    @property
    def slot(self) -> int:
        """The slot of the first key."""
        return slot_of(next(words for words, _ in self.commands if words[0] != "MULTI"))

    @property
    def is_open(self) -> bool:
        """Say whether it is a MULTI that lacks its EXEC."""
        first, last = (self.commands[at][0][0] for at in (0, -1))
        return (first, last) != ("MULTI", "EXEC") and first == "MULTI"


@dataclass(slots=True)
class ClusterExchange:
    """Commands that are sent to the nodes of their slots, and again if a node refers to another.

    Each node to which something goes gets, on the same connection, the scripts before it, and the
    wait for replicas behind it. Scripts stand at the beginning of the commands, waits at the end.

    Args:
        known: The slots; what nodes say about them is noted there.
        scripts: Commands that load a script.
        waits: Commands that wait for replicas.
        of_all: The answers of each node to what all of them get.
        has_begun: Something was sent, and nobody knows what came of it if it ends early.
        must_pause: The nodes need a moment before commands go out again, and the slots may have
            other masters by then.
    """

    known: SlotMap
    calls: list[RoutedCall] = field(default_factory=list)
    scripts: list[Command] = field(default_factory=list)
    waits: list[Command] = field(default_factory=list)
    of_all: list[list[Any]] = field(default_factory=list)
    has_begun: bool = False
    must_pause: bool = False

    @classmethod
    def of(cls, known: SlotMap, commands: Iterable[Command]) -> ClusterExchange:
        """Return a new exchange of these commands."""
        new = cls(known)
        for command in commands:
            name = command[0][0]
            if new.calls and new.calls[-1].is_open:
                new.calls[-1].commands.append(command)
            elif name in {"SCRIPT LOAD", "WAITAOF"}:
                (new.waits if name == "WAITAOF" else new.scripts).append(command)
            else:
                new.calls.append(RoutedCall([command]))
        return new

    def groups(self) -> dict[RedisNode, list[RoutedCall]]:
        """Return what is sent next, by node; after the last round that is nothing."""
        groups: dict[RedisNode, list[RoutedCall]] = {}
        for call in self.calls:
            if call.is_left:
                node = call.asking or self.known.owner(call.slot)
                groups.setdefault(node, []).append(call)
        self.must_pause = False
        return groups

    def take(self, node: RedisNode, call: RoutedCall, answers: list[Any]) -> None:
        """Keep a node's answers, or note that it did not run the call, which has to go out again.

        Of a MULTI, either all commands are run or none.
        """
        call.answers, call.asking, call.is_left = answers, None, True
        for answer in answers:
            match answer:
                case MovedError():
                    self.known.owners[answer.slot_id] = self._named(node, answer)
                case AskError() if len(answers) == 1:
                    call.asking = self._named(node, answer)
                case AskError() | TryAgainError() | ClusterDownError():
                    self.must_pause = True  # of its keys, some may be here and some there
                case _:
                    continue
            return
        call.is_left = False

    def _named(self, node: RedisNode, answer: AskError) -> RedisNode:
        return self.known.named(answer.host, answer.port, node)

    @property
    def is_over(self) -> bool:
        """Say whether every command was run."""
        return not any(call.is_left for call in self.calls)

    def answers(self) -> list[Any]:
        """Return the answers in the order of the commands.

        Among them are errors of a node, and one for each command that no node has taken in time.
        """
        why = "has no node now that answers for a slot: it moves, or its master is down"
        own = [
            NoOwner(why) if call.is_left else answer
            for call in self.calls
            for answer in call.answers
        ]
        shared = list(map(_least, zip(*self.of_all, strict=True)))
        return [*shared[: len(self.scripts)], *own, *shared[len(self.scripts) :]]


def _least(answers: Sequence[Any]) -> Any:
    """Return the first error, or the answer with the fewest replicas; scripts are loaded alike."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    return errors[0] if errors else min(answers, key=lambda confirmed: confirmed[1:])


NODE_SECONDS: Final = 1.0
"""Seconds in which a node has to tell the slots; then another one is asked."""
_REFERRED_SECONDS: Final = 5.0
"""Seconds for which commands that no node has run are tried again, while a slot moves."""
_PAUSE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.2
_LOST: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


@dataclass(slots=True, eq=False)
class ClusterRouter:
    """The exchange of commands with the nodes, which both clients share.

    It is written as coroutines. With synchronous connections nothing in them waits for an event
    loop, so that `run_through` runs them like functions.

    Args:
        address: Of the Cluster.
        connect: Makes a client of one node; with how long its answers may take.
        sleep: Waits so many seconds.
        together: Runs coroutines at once, and returns their results.
        away_seconds: The time for which what surely had no effect is tried, while a master is away.
    """

    address: RedisAddress
    connect: Callable[[RedisNode, float], Any]
    timeout_seconds: float
    sleep: Callable[[float], Any]
    together: Callable[[Sequence[Coroutine[Any, Any, Any]]], Any]
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
            await done(self.sleep(_LOOK_SECONDS))

    async def _exchanged(self, exchange: ClusterExchange) -> list[Any]:
        ends_at = time.monotonic() + _REFERRED_SECONDS
        exchange.known = self._known or await self.ask_slots()
        while True:
            await self._send_round(exchange)
            if exchange.is_over or time.monotonic() >= ends_at:
                return exchange.answers()
            if exchange.must_pause:
                await done(self.sleep(_PAUSE_SECONDS))
                exchange.known = await self.ask_slots()

    async def _send_round(self, exchange: ClusterExchange) -> None:
        """Send the commands to all nodes at once, so that their disks and replicas work at once."""
        groups = exchange.groups()
        node = None
        try:
            for node in groups:
                pool = self.server(node).connection_pool
                await done(pool.release(await done(pool.get_connection())))
        except _LOST:
            self._known, self._failed = None, node
            raise
        exchange.has_begun = True
        asked = [self._asked(node, exchange, calls) for node, calls in groups.items()]
        if len(asked) > 1:
            found = await done(self.together(asked))
        else:
            found = [await each for each in asked]
        for (node, calls), each in zip(groups.items(), found, strict=True):
            answers = iter(each)
            of_all = list(islice(answers, len(exchange.scripts)))
            for call in calls:
                told = list(islice(answers, len(call.sent)))
                exchange.take(node, call, told[-len(call.commands) :])
            exchange.of_all.append([*of_all, *answers])

    async def _asked(self, node: RedisNode, exchange: ClusterExchange, calls: list[Any]) -> Any:
        pipe = self.server(node).pipeline(transaction=False)
        sent = chain.from_iterable(call.sent for call in calls)
        pipe.command_stack = [*exchange.scripts, *sent, *exchange.waits]
        try:
            return await done(pipe.run())
        except _LOST:
            self._known, self._failed = None, node
            raise

    def server(self, node: RedisNode) -> Any:
        """Return the client of one node."""
        if node not in self._servers:
            self._servers.setdefault(node, self.connect(node, self.timeout_seconds))
        return self._servers[node]

    async def ask_slots(self) -> SlotMap:
        """Ask one node after the other for the slots, last the one that was lost."""
        silence: Exception = NoOwner("names no node")
        seen = random.sample(self._seen, len(self._seen))
        nodes = dict.fromkeys((*seen, *self.address.hosts))
        for node in sorted(nodes, key=lambda node: node == self._failed):
            quick = self.connect(node, min(NODE_SECONDS, self.timeout_seconds))
            try:
                answer = await done(quick.run_command("CLUSTER", "SLOTS"))
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
                await done(quick.connection_pool.disconnect())
            self._known = known = read_slots(answer, node, self.address.outside)
            self._seen = known.nodes
            return known
        raise silence

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for server in self._servers.values():
            with suppress(redis.exceptions.RedisError):
                await done(server.connection_pool.disconnect())


def in_threads(asked: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines of synchronous clients at once; return their results when all have ended."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(run_through, asked))


async def in_tasks(asked: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines at once; return their results when all have ended."""
    return first_raised(list(await asyncio.gather(*asked, return_exceptions=True)))


class ClusterClient(Redis):
    """A client of all masters of a Cluster; each gets its own commands of a pipeline together."""

    def __init__(self, router: ClusterRouter) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self._router = router

    def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command on the master of its key."""
        return first_raised(run_through(self._router.run([(words, options)])))[0]

    def run_pipeline(self, pipe: Pipeline) -> list[Any]:
        """Run the commands of a pipeline on the masters of their keys."""
        return run_through(self._router.run(_commands_of(pipe, pipe.transaction)))

    def masters(self) -> list[tuple[RedisNode, Redis]]:
        """Return all masters as they are now, each with a client of its own."""
        with redis_errors(self.where):
            known = run_through(self._router.ask_slots())
        return [(node, self._router.server(node)) for node in known.masters]

    def keys_of_masters(self) -> dict[str, RedisNode]:
        """Return a key of each master, and the master, as they are now."""
        with redis_errors(self.where):
            known = run_through(self._router.ask_slots())
        owners = {known.owners[slot]: name for name, slot in _spread_keys()}
        return {owners[node]: node for node in known.masters if node in owners}

    def close(self) -> None:
        """Close the connections to all nodes."""
        run_through(self._router.close())


@cache
def _spread_keys() -> tuple[tuple[str, int], ...]:
    """Return the keys of nodes' certificates with their slots, spread over all masters."""
    names = map(node_instance_id, reversed(range(_INSTANCES)))
    return tuple((name, key_slot(name.encode())) for name in names)


class AsyncClusterClient(AsyncRedis):
    """An asynchronous client of all masters of a Cluster; see `ClusterClient`."""

    keeps_order = False

    def __init__(self, router: ClusterRouter) -> None:
        super().__init__(connection_pool=router.server(router.address.hosts[0]).connection_pool)
        self._router = router

    async def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command; see `ClusterClient.run_command`."""
        return first_raised(await self._router.run([(words, options)]))[0]

    async def run_pipeline(self, pipe: AsyncPipeline) -> list[Any]:
        """Run the commands of a pipeline; see `ClusterClient.run_pipeline`."""
        return await self._router.run(_commands_of(pipe, pipe.is_transaction))

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in the library
        """Close the connections to all nodes."""
        await super().aclose(close_connection_pool)
        await self._router.close()


def _commands_of(pipe: Any, is_transaction: Any) -> list[Command]:
    if is_transaction:
        raise NotImplementedError("A Cluster has no transactions over several slots: use a script.")
    commands, pipe.command_stack = pipe.command_stack, []
    return list(commands)
