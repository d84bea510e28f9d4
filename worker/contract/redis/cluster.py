"""Clients of a Redis Cluster, which send each command to the master of its slot.

The library has such clients too. They send again what a lost connection may have carried out, let
nothing wait for replicas on the connection that wrote, and refuse scripts in a pipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from typing import Any, Final

import redis.asyncio
import redis.client
import redis.exceptions

from worker.contract.redis.sentinels import READS
from worker.contract.redis.slots import (
    ClusterExchange,
    ClusterNodes,
    NoOwner,
    RoutedCall,
    SlotMap,
)
from worker.contract.redis.url import RedisAddress, RedisNode

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


class _ClusterPipeline(redis.client.Pipeline):
    """A pipeline over several nodes, each of which gets its own commands together."""

    def __init__(self, client: ClusterClient) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)  # noqa: FBT003 - as in the library
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as in the library
        answers = self._client.run(self.command_stack)
        self.reset()
        return _first_raised(answers) if raise_on_error else answers


class ClusterClient(redis.Redis):
    """A client of all masters of a Cluster.

    Args:
        address: Of the Cluster.
        server: Makes a client of one node; with how long its answers may take.
        away_seconds: How long what surely had no effect is tried, while a master is away.

    Attributes:
        replicas: See `SingleClient`.
    """

    replicas: int = 0

    def __init__(
        self,
        address: RedisAddress,
        server: Callable[[RedisNode, float], redis.Redis],
        *,
        timeout_seconds: float,
        away_seconds: float = 0.0,
    ) -> None:
        first = server(address.hosts[0], timeout_seconds)
        super().__init__(connection_pool=first.connection_pool)
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._nodes = ClusterNodes(address, away_seconds)
        self._servers: dict[RedisNode, redis.Redis] = {}

    def execute_command(self, *words: Any, **options: Any) -> Any:
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

    def masters(self) -> list[tuple[RedisNode, redis.Redis]]:
        """Return all masters as they are now, each with a client of its own."""
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
        exchange.known = self.slots()
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

    def server(self, node: RedisNode) -> redis.Redis:
        """Return the client of one node."""
        found = self._servers.get(node)
        if found is None:
            found = self._servers.setdefault(node, self._server(node, self._timeout_seconds))
        return found

    def slots(self) -> SlotMap:
        """Return the slots as last seen, or ask for them anew if a node was lost since."""
        return self._nodes.known or self._asked_slots()

    def _asked_slots(self) -> SlotMap:
        for node in self._nodes.to_ask():
            with (
                closing(self._server(node, min(NODE_SECONDS, self._timeout_seconds))) as quick,
                self._nodes.asking(node),
            ):
                answer = quick.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
                return self._nodes.told(answer, node)
        raise self._nodes.silence

    def close(self) -> None:
        """Close the connections to all nodes."""
        super().close()
        for server in self._servers.values():
            server.close()


class _AsyncClusterPipeline(redis.asyncio.client.Pipeline):
    """The asynchronous form of `_ClusterPipeline`."""

    def __init__(self, client: AsyncClusterClient) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)  # noqa: FBT003 - as in the library
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as in the library
        answers = await self._client.run(self.command_stack)
        await self.reset()  # type: ignore[no-untyped-call]
        return _first_raised(answers) if raise_on_error else answers


class AsyncClusterClient(redis.asyncio.Redis):
    """An asynchronous client of all masters of a Cluster; see `ClusterClient`."""

    replicas: int = 0

    def __init__(
        self,
        address: RedisAddress,
        server: Callable[[RedisNode, float], redis.asyncio.Redis],
        *,
        timeout_seconds: float,
    ) -> None:
        first = server(address.hosts[0], timeout_seconds)
        super().__init__(connection_pool=first.connection_pool)
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._nodes = ClusterNodes(address, 0.0)
        self._servers: dict[RedisNode, redis.asyncio.Redis] = {}

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run a command; see `ClusterClient.execute_command`."""
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

    def server(self, node: RedisNode) -> redis.asyncio.Redis:
        """Return the client of one node."""
        found = self._servers.get(node)
        if found is None:
            found = self._servers[node] = self._server(node, self._timeout_seconds)
        return found

    async def _asked_slots(self) -> SlotMap:
        for node in self._nodes.to_ask():
            async with self._server(node, min(NODE_SECONDS, self._timeout_seconds)) as quick:
                with self._nodes.asking(node):
                    answer = await quick.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
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
