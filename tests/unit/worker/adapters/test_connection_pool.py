"""The private parts of httpx and httpcore that we use are there, in the versions that we allow."""

import inspect
import re
import tomllib
from pathlib import Path

import httpcore
import httpx
from httpcore._async.connection import AsyncHTTPConnection
from httpcore._async.connection_pool import AsyncPoolRequest

from segrelay.worker.adapters.sender import drop_remains, pooled_transport

SOURCE = inspect.getsource(pooled_transport) + inspect.getsource(drop_remains)
PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]


def test_each_private_part_is_there():
    transport = pooled_transport(httpcore.AnyIOBackend(), connections=3)
    pool = httpx.AsyncClient(transport=transport, trust_env=False)._transport._pool
    pooled = AsyncPoolRequest(httpcore.Request("GET", "http://example.com", extensions={"a": 1}))

    assert type(pool) is httpcore.AsyncConnectionPool
    assert (pool._requests, pool._connections, pool.connections) == ([], [], [])
    assert pool._assign_requests_to_connections() == []
    assert (pooled.request.extensions, pooled.connection) == ({"a": 1}, None)
    assert {"is_idle", "is_closed", "aclose"} <= set(dir(AsyncHTTPConnection))
    assert set(re.findall(r"\.(_[a-z]\w+)", SOURCE)) == {
        "_transport", "_pool", "_requests", "_connections", "_assign_requests_to_connections",
    }  # fmt: skip


def test_both_libraries_are_bounded():
    bounded = [one for one in PROJECT["dependencies"] if re.match(r"httpx|httpcore", one)]

    assert len(bounded) == 2
    assert all("<" in one for one in bounded)
