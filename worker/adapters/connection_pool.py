"""The connections of a client of httpx: all that we use of its private parts, and of httpcore's.

`pyproject.toml` bounds both libraries, and a test names each part: another version may lack it.
"""

from __future__ import annotations

import ssl
from typing import Any

import httpcore
import httpx


def pooled_transport(
    network: httpcore.AsyncNetworkBackend,
    *,
    ssl_context: ssl.SSLContext,
    connections: int,
    keepalive_seconds: float,
    local_address: str | None,
) -> httpx.AsyncHTTPTransport:
    """Return a transport whose connections are made by a network backend.

    httpx hands no network backend on to the pool that it makes, so this pool is ours.

    Args:
        network: Makes the connections.
        ssl_context: Secures them.
        connections: The largest number of connections at once, idle ones too.
        keepalive_seconds: The time after which an idle connection is closed.
        local_address: The address to connect from; None = any.
    """
    transport = httpx.AsyncHTTPTransport(verify=ssl_context, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001
        ssl_context=ssl_context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=keepalive_seconds,
        http1=True,
        http2=False,
        retries=0,
        local_address=local_address,
        network_backend=network,
    )
    return transport


async def drop_remains(client: httpx.AsyncClient, trace: Any) -> None:
    """Remove a request that was cut off, and its connection, from the pool of a client.

    httpcore 1.0.9 keeps a connection whose request was cancelled before it began to connect, right
    after it was connected, or while its answer was closed. Nobody gets that connection any more,
    and it counts: a pool that is full of them sends nothing until the process ends.

    Args:
        client: Made with `pooled_transport`.
        trace: The extension `trace` of the request, which is its own.
    """
    pool: Any = client._transport._pool  # type: ignore[attr-defined] # noqa: SLF001
    for pooled in list(pool._requests):  # noqa: SLF001
        if pooled.request.extensions.get("trace") == trace:
            pool._requests.remove(pooled)  # noqa: SLF001
    used = {id(pooled.connection) for pooled in pool._requests}  # noqa: SLF001
    unused = [each for each in pool.connections if id(each) not in used]
    unused = [each for each in unused if not (each.is_idle() or each.is_closed())]
    for connection in unused:
        pool._connections.remove(connection)  # noqa: SLF001
    ended = pool._assign_requests_to_connections()  # noqa: SLF001
    for connection in (*unused, *ended):
        await connection.aclose()
