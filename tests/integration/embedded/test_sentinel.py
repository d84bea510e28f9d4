import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from segrelay.ops.embedded.lifecycle import find_server
from segrelay.worker.contract.celery import broker_transport_options, celery_broker_url
from segrelay.worker.contract.redis.connection import connect, connect_async, wait_ready
from segrelay.worker.contract.redis.url import parse_redis_url
from segrelay.worker.contract.settings.sections import RedisSettings


@pytest.fixture
def sentinel_url(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL by which a real Sentinel, with a password of its own, leads to the Valkey."""
    address = parse_redis_url(redis_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass guard\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {address.hosts[0][1]} 1\n"
        f"sentinel auth-pass main {address.password}\n"
        f"sentinel auth-user main {address.username}\n"
    )
    sentinel = subprocess.Popen(
        [find_server(), config, "--sentinel"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    yield (
        f"redis+sentinel://{address.username}:{address.password}@127.0.0.1:1,127.0.0.1:{port}/main/0"
        "?sentinel_password=guard"
    )
    sentinel.kill()
    sentinel.wait()


def test_the_master_is_found_through_sentinels_of_which_one_is_dead(sentinel_url: str):
    async def ask() -> object:
        async with connect_async(sentinel_url) as client:
            return await client.get("key")

    (warning,) = wait_ready(sentinel_url)
    assert "set redis.replicas" in warning
    with connect(sentinel_url) as client:
        client.set("key", "value")

    assert asyncio.run(ask()) == b"value"


def test_celery_s_transport_finds_it_too(sentinel_url: str):
    settings = RedisSettings(url=sentinel_url)
    wait_ready(sentinel_url)

    keys = {"unacked_key": "segrelay.unacked", "unacked_index_key": "segrelay.unacked_index"}
    options = keys | broker_transport_options(settings)

    with kombu.Connection(celery_broker_url(settings), transport_options=options) as connection:
        queue = connection.SimpleQueue("segrelay.letters")
        queue.put({"a": 1})
        message = queue.get(timeout=5)
        message.ack()
        queue.close()

    assert message.payload == {"a": 1}
