"""URLs that we send to: how they are put together, and which ones and whose addresses are refused.

Insider's documentation names three paths for users. Two are allowed here; the third erases whole
profiles for good and is refused for every API, however it is written.

A template may choose the host that a request goes to, and a name may lead anywhere. So connections
go to public addresses and to allowed exceptions: else a profile's field could make us post to a
database or to the service from which a cloud hands out its credentials.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

BUCKETS: Final = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""The schemes of objects in buckets, of S3 and what speaks like it, Google Cloud and Azure, each
with the module that reads them. The extra has the name of the scheme."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_UNREACHABLE: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))
)
"""Blocks of IANA's special-purpose registries that some versions of Python take for public ones.

192.88.99.0/24 is what is left of the relays of 6to4, which were given up (RFC 7526). A few anycast
addresses in 192.0.0.0/24 and 2001::/23 are reachable, at which no endpoint is.
"""
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
        address: The address that a host resolved to.
        networks: The networks that the destination allows beside public addresses.
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
    if any(address in block for block in _UNREACHABLE):
        return False
    return address.is_global and not address.is_multicast


INSIDER_PATHS: Final = ("/api/user/v1/upsert", "/api/user/v1/attribute/delete")
"""The paths at Insider to which anything is ever written."""
INSIDER_PER_MINUTE: Final = 25_000
"""The requests a minute that Insider takes with one key."""

_INSIDER_DOMAIN: Final = "useinsider.com"
_ERASES: Final = ("user", "v1", "delete")
_DANGER: Final = "/user/v1/delete erases whole profiles, irreversibly"
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNWANTED: Final = re.compile(r"[\x00-\x20\x7f\\]")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_MOST_ENCODINGS: Final = 8
"""The number of times that a path may be percent-encoded before it counts as an attempt to hide."""


def join(base_url: str, path: str) -> str:
    """Return the URL of a path below a base URL; an absolute URL stays what it is."""
    if _ABSOLUTE.match(path):
        return path
    if not path:
        return base_url
    return f"{base_url.rstrip('/')}/{path.lstrip('/')}"


def refuse_reason(url: str, api: str) -> str | None:
    """Say why nothing may be sent to a URL, or None where it may.

    Args:
        url: The whole URL, without the authorization's parameters.
        api: The destination's API.
    """
    if erases(url):
        return f"{_DANGER}; an exit goes to {INSIDER_PATHS[1]}"
    parts = _split(url)
    if isinstance(parts, str):
        return parts
    if api == "insider" or _is_insider(parts):
        return _refuse_at_insider(parts)
    return None


def refuse_base_reason(base_url: str) -> str | None:
    """Say why a destination may not have a base URL, or None where it may."""
    parts = _split(base_url)
    if isinstance(parts, str):
        return parts
    return "a base URL has no query" if parts.query else None


def is_same_origin(url: str, base_url: str) -> bool:
    """Say whether two URLs lead to one host and port, so that one authorization fits both."""
    first, second = _split(url), _split(base_url)
    if isinstance(first, str) or isinstance(second, str):
        return False
    return _origin(first) == _origin(second)


def host_of(url: str) -> str:
    """Return the host of a URL, and its port if one is given."""
    address = urlsplit(url)
    return (address.hostname or "").lower() + (f":{address.port}" if address.port else "")


def masked(url: str) -> str:
    """Return a Redis URL as it may be shown: without user, password and other secrets."""
    shown = re.sub(r"(?<=://).*@", "***@", url)
    return re.sub(r"([?&][^=&]*(?:password|username)=)[^&]*", r"\1***", shown)


def without_query(url: str) -> str:
    """Return a URL as it may be shown whose query may hold a secret."""
    path, mark, _ = url.partition("?")
    return f"{path}?***" if mark else url


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or default


def _split(url: str) -> SplitResult | str:
    """Return the parts of a URL that can be sent to, or why it can't be."""
    if _UNWANTED.search(url):
        return "it holds a space, a control character or a backslash"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is not a URL"
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host:
        return "it is not an https:// URL"
    if "@" in parts.netloc:
        return "it holds a user name or password; these belong into an authorization"
    if not _HOST.fullmatch(host) or port == 0:
        return "its host or port can't be one (a name outside ASCII is written in its xn-- form)"
    if parts.fragment:
        return "it holds a fragment (#…), which is never sent"
    if parts.scheme == "http" and not is_loopback(host):
        return "http:// would send profiles and credentials in the clear; only loopback may have it"
    return parts


def is_remote(name: str) -> bool:
    """Say whether a file's name is the URL of one in a bucket."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme in BUCKETS


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by its name or address alone."""
    if host.rstrip(".").lower() == "localhost":
        return True
    address = literal_address(host)
    return address is not None and address.is_loopback


def _is_insider(parts: SplitResult) -> bool:
    host = (parts.hostname or "").rstrip(".")
    return host == _INSIDER_DOMAIN or host.endswith("." + _INSIDER_DOMAIN)


def _refuse_at_insider(parts: SplitResult) -> str | None:
    if parts.path not in INSIDER_PATHS:
        return (
            f"{parts.path or '/'} is not one of the paths that may be written to at Insider"
            f" ({', '.join(INSIDER_PATHS)}); others are refused because {_DANGER}"
        )
    return "Insider's paths take no query" if parts.query else None


def erases(url: str) -> bool:
    """Say whether a URL or path, however written, leads to the endpoint that erases profiles.

    Percent-encoding, letter case, `..`, `//`, backslashes and parameters are seen through; a path
    that is encoded over and over counts as erasing.
    """
    plain = _decoded(url.partition("?")[0])
    if plain is None:
        return True
    plain = re.sub(r"[\x00-\x20\x7f]", "", plain)
    words = [re.split(r"[;?#]", word)[0] for word in plain.split("/")]
    words = [word for word in words if word not in {"", "."}]
    return _erases(words) or _erases(_resolved(words))


def _decoded(path: str) -> str | None:
    for _ in range(_MOST_ENCODINGS):
        decoded = unquote(path)
        if decoded == path:
            return unicodedata.normalize("NFKC", path).replace("\\", "/").casefold()
        path = decoded
    return None


def _resolved(words: list[str]) -> list[str]:
    resolved: list[str] = []
    for word in words:
        if word != "..":
            resolved.append(word)
        elif resolved:
            resolved.pop()
    return resolved


def _erases(words: list[str]) -> bool:
    size = len(_ERASES)
    return any(tuple(words[at : at + size]) == _ERASES for at in range(len(words) - size + 1))
