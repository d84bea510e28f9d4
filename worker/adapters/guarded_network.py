"""Connections to allowed addresses only, which are closed when their request is cancelled.

What was looked at is what is connected to: a name is resolved once a connection, and the address
that passed is handed on, so that a name which leads elsewhere at its second look gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import httpcore

from worker.contract.settings.values.addresses import literal_address, refuse_address_reason

_MOST_ADDRESSES: Final = 4
"""The most addresses of a host that are tried; they share the time for connecting."""


Resolve = Callable[[str, int, socket.AddressFamily], Awaitable[Sequence[str]]]
"""A function that returns a host's addresses for a port, in the order in which to try them."""


async def resolved_by_the_system(
    host: str, port: int, family: socket.AddressFamily
) -> Sequence[str]:
    """Ask the system's resolver for the addresses of a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class AddressRefusedError(Exception):
    """A name leads only to addresses that may not be connected to."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """A network backend of httpcore that connects to allowed addresses only.

    Args:
        networks: What is allowed beside public addresses.
        ipv4_only: Names are resolved to IPv4 addresses alone.
        resolve: Who knows the addresses of names.
    """

    def __init__(
        self,
        networks: Sequence[str],
        *,
        ipv4_only: bool = False,
        resolve: Resolve = resolved_by_the_system,
    ) -> None:
        self._resolve = resolve
        self._networks = networks
        self._family = socket.AF_INET if ipv4_only else socket.AF_UNSPEC
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve a host, and connect to the first allowed address that takes the connection."""
        addresses = self._allowed(host, await self._resolved(host, port))[:_MOST_ADDRESSES]
        share = timeout / len(addresses) if timeout else timeout
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(
            addresses[-1], port, share, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._inner.sleep(seconds)

    async def _resolved(self, host: str, port: int) -> list[str]:
        try:
            return list(dict.fromkeys(await self._resolve(host, port, self._family)))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error

    def _allowed(self, host: str, addresses: Sequence[str]) -> list[str]:
        allowed: list[str] = []
        reasons: list[str] = []
        for text in addresses:
            address = literal_address(text)
            reason = "no IP address"
            if address is not None:
                reason = refuse_address_reason(address, self._networks) or ""
            if reason:
                reasons.append(f"{text}, {reason}")
            else:
                allowed.append(text)
        if allowed:
            return allowed
        if reasons:
            raise AddressRefusedError(host, reasons[0])
        raise httpcore.ConnectError(f"{host} has no address")


class CancellableNetwork(httpcore.AsyncNetworkBackend):
    """A network backend of httpcore that closes a connection whose TLS handshake is cancelled."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host and port; see `httpcore.AsyncNetworkBackend.connect_tcp`."""
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream)

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection before TLS, which closes itself if the TLS handshake fails or is cancelled."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
