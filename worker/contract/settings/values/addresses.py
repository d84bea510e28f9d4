"""The network addresses that may be connected to: public ones and allowed exceptions.

A template may choose the host that a request goes to, and a name may lead anywhere. Without this
rule a profile's field could make us post to a database or to the service from which a cloud hands
out its credentials.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_UNREACHABLE: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20"))
)
"""Blocks of IANA's special-purpose registries that Python 3.11 takes for public addresses.

192.88.99.0/24 is what is left of the relays of 6to4, which were given up (RFC 7526).
"""
_REACHABLE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128",
            "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28",
        ),
    )
)  # fmt: skip
"""The parts of reserved blocks that are globally reachable, which Python 3.11 does not know."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LINK_LOCAL: Final = ipaddress.IPv4Network("169.254.0.0/16")
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    )
)
"""The addresses of cloud metadata (Azure, Alibaba, Oracle, AWS) that are not link-local."""


@lru_cache(maxsize=64)
def network(text: str) -> Network:
    """Read a network (`10.1.0.0/16`) or a single address.

    Raises:
        ValueError: It is neither.
    """
    return ipaddress.ip_network(text)


def literal_address(host: str) -> Address | None:
    """Return the address that a host is written as, or None where it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def refuse_address_reason(address: Address, networks: Sequence[str]) -> str | None:
    """Say why an address may not be connected to, or None where it may.

    Args:
        address: What a host resolved to.
        networks: What the destination allows beside public addresses.
    """
    meant = _meant(address)
    if any(one in network(text) for text in networks for one in (address, meant)):
        return None
    if meant in _METADATA or (meant.version == 4 and meant in _LINK_LOCAL):  # noqa: PLR2004
        return "a link-local address, from which clouds hand out their credentials"
    if meant.is_loopback:
        return "this machine itself"
    if meant.is_link_local:
        return "a link-local address"
    return None if _is_public(meant) else "a private or reserved address"


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if any(address in block for block in _REACHABLE):
        return True
    if any(address in block for block in _UNREACHABLE):
        return False
    return address.is_global and not address.is_multicast
