import asyncio
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from segrelay.worker.contract.redis.connection import (
    connect,
    connect_async,
    wait_ready,
)
from segrelay.worker.contract.redis.url import parse_redis_url
from segrelay.worker.errors import RedisUnavailable
from tests.full import full
from tests.waiting import allowed, until

MARK = b"settle-once"


class SilentServer(socketserver.ThreadingTCPServer):
    """Takes commands and counts those with a mark; answers OK to others and cuts or hangs."""

    daemon_threads = True

    def __init__(self, *, hangs: bool) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.seen = self.connections = 0
        self._may_cut = threading.Event()
        if not hangs:
            self._may_cut.set()
        self.url = f"redis://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()

    def finish_request(self, request: Any, _address: Any) -> None:
        self.connections += 1
        while received := request.recv(65536):
            if MARK in received:
                self.seen += received.count(MARK)
                self._may_cut.wait()
                return
            request.sendall(b"+OK\r\n" * received.count(b"CLIENT"))

    def close(self) -> None:
        self._may_cut.set()
        self.shutdown()
        self.server_close()


@pytest.fixture(params=["cuts the connection", "does not answer"])
def server(request: pytest.FixtureRequest) -> Iterator[SilentServer]:
    found = SilentServer(hangs=request.param == "does not answer")
    yield found
    found.close()


def commands(client: Any) -> Any:
    """Return a command and a pipeline with the mark, to be sent by a client of either kind."""
    pipe = client.pipeline(transaction=False)
    pipe.set(MARK, 1)
    return {
        "command": lambda: client.execute_command("EVALSHA", MARK, 0),
        "pipeline": pipe.execute,
    }


def send(url: str, what: str) -> None:
    with connect(url, timeout_seconds=2) as client:
        commands(client)[what]()


async def send_async(url: str, what: str) -> None:
    async with connect_async(url, timeout_seconds=2) as client:
        await commands(client)[what]()


@pytest.mark.parametrize("what", ["command", "pipeline"])
@pytest.mark.parametrize("send", [send, lambda *what: asyncio.run(send_async(*what))])
def test_what_was_sent_is_not_sent_again_if_its_answer_is_lost(
    server: SilentServer, send: Callable[[str, str], None], what: str
):
    with pytest.raises(RedisUnavailable):
        send(server.url, what)

    until(lambda: server.seen)
    assert (server.seen, server.connections) == (1, 1)


@pytest.fixture
def dead() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("scheme", "path", "message"),
    [("redis", "", "127.0.0.1:"), ("redis+sentinel", "/main", "no Sentinel that can")],
)
def test_who_is_dead_is_known_at_once(dead: str, scheme: str, path: str, message: str):
    begun = time.monotonic()

    with (
        connect(f"{scheme}://{dead}{path}") as client,
        pytest.raises(RedisUnavailable, match=message),
    ):
        client.ping()

    assert time.monotonic() - begun < allowed(1.5)


def test_a_connection_that_timed_out_does_not_give_its_late_answer_to_the_next_command(redis_url):
    with connect(redis_url, timeout_seconds=allowed(1)) as client:
        with pytest.raises(RedisUnavailable, match="did not answer in time"):
            client.blpop(["key"], timeout=60)

        assert client.echo("mine") == b"mine"


def test_a_cancelled_command_does_not_give_its_late_answer_to_the_next_one(redis_url):
    async def run() -> None:
        async with connect_async(redis_url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.blpop(["key"], timeout=60)

            assert await client.echo("mine") == b"mine"

    asyncio.run(run())


def test_a_full_redis_is_unavailable_in_commands_pipelines_and_scripts(redis_url):
    with connect(redis_url) as client, full(client):
        pipe = client.pipeline(transaction=False)
        pipe.set("a", "b")
        for write in (
            lambda: client.set("a", "b"),
            lambda: client.eval("return redis.call('SET', KEYS[1], 'b')", 1, "a"),
            pipe.execute,
        ):
            with pytest.raises(RedisUnavailable, match="is full"):
                write()


def test_a_redis_that_keeps_less_than_promised_is_warned_about(redis_url):
    with connect(redis_url) as client:
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            first, second = wait_ready(redis_url)
        finally:
            client.config_set("appendfsync", "always")
            client.config_set("maxmemory-policy", "noeviction")

    assert "appendfsync is everysec" in first
    assert "maxmemory-policy is allkeys-lru" in second
    assert wait_ready(redis_url) == ()


def test_a_redis_that_is_not_there_is_waited_for_as_long_as_said(dead: str):
    begun = time.monotonic()

    with pytest.raises(RedisUnavailable, match=f"Redis at {dead} can't be reached"):
        wait_ready(f"redis://{dead}", seconds=0.3)

    assert 0.3 <= time.monotonic() - begun < allowed(3)


def test_a_wrong_password_is_not_waited_for(redis_url):
    host, port = parse_redis_url(redis_url).hosts[0]
    begun = time.monotonic()

    for url in (f"redis://:wrong@{host}:{port}", f"redis://{host}:{port}"):
        with pytest.raises(RedisUnavailable, match="password") as found:
            wait_ready(url)
        assert "wrong" not in found.value.message

    assert time.monotonic() - begun < allowed(3)


def test_a_replica_is_not_taken_for_the_master(redis_url):
    with connect(redis_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(RedisUnavailable, match="read-only replica"):
                wait_ready(redis_url, seconds=0.1)
            with pytest.raises(RedisUnavailable, match="read-only replica"):
                client.set("a", "b")
        finally:
            client.replicaof("NO", "ONE")
