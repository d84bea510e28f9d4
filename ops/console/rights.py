"""The rights of people at the console: passwords, sessions, roles, and checks of a request.

A password is kept as its scrypt hash. A session is a cookie that only this console can read and
write; it names the person and their password's hash, so that another password ends it. Roles are
looked up at each request and never stand in the cookie.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from cryptography.fernet import Fernet, InvalidToken

from segrelay.ops.state.opened import run
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings.sections import ConsoleRole, ConsoleSettings, ConsoleUser
from segrelay.worker.contract.settings.urls import is_loopback
from segrelay.worker.errors import ConfigurationInvalid

VIEWER: Final[ConsoleRole] = "viewer"
OPERATOR: Final[ConsoleRole] = "operator"
REVEALER: Final[ConsoleRole] = "revealer"
SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 1_024

_SCHEME: Final = "scrypt"
_COST, _BLOCK, _LANES = 2**15, 8, 1
_HIGHEST_COST: Final = 2**20
_SALT_BYTES: Final = 16
_MEMORY_BYTES: Final = 2 * 128 * _COST * _BLOCK
_AT_ONCE: Final = threading.Semaphore(2)
"""Passwords that are compared at once: each needs 32 MB and a tenth of a second of a core."""


def hash_password(password: str) -> str:
    """Return the hash of a password as the configuration has it: `scrypt:N:r:p:SALT:KEY`."""
    salt = os.urandom(_SALT_BYTES)
    key = _key(password, salt, _COST, _BLOCK, _LANES)
    texts = (base64.b64encode(part).decode() for part in (salt, key))
    return ":".join((_SCHEME, str(_COST), str(_BLOCK), str(_LANES), *texts))


def is_password(password: str, hashed: str) -> bool:
    """Say whether a password has this hash.

    Raises:
        ConfigurationInvalid: It is no hash that `segrelay console password` has printed.
    """
    salt, key, costs = _parse_hash(hashed)
    if len(password) > LONGEST_PASSWORD:
        return False
    return hmac.compare_digest(_key(password, salt, *costs), key)


def _parse_hash(hashed: str) -> tuple[bytes, bytes, tuple[int, int, int]]:
    try:
        scheme, cost, block, lanes, salt, key = hashed.split(":")
        costs = (int(cost), int(block), int(lanes))
        known = scheme == _SCHEME and 1 < costs[0] <= _HIGHEST_COST
        found = base64.b64decode(salt, validate=True), base64.b64decode(key, validate=True)
    except ValueError:
        known = False
    if not known:
        raise ConfigurationInvalid(
            "A password of [console.users] is no hash: `segrelay console password` prints one."
        )
    return *found, costs


def _key(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    with _AT_ONCE:
        return hashlib.scrypt(
            password.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=_MEMORY_BYTES, dklen=32
        )


@dataclass(frozen=True, slots=True)
class Person:
    """A person who looks at the console; the name "" = nobody has to sign in here.

    Args:
        epoch: The epoch that the cookie of the session has; None = no cookie has named the person.
    """

    name: str = ""
    roles: frozenset[ConsoleRole] = frozenset({VIEWER})
    epoch: str | None = field(default=None, compare=False)

    @property
    def acts(self) -> bool:
        return OPERATOR in self.roles

    @property
    def reveals(self) -> bool:
        """Say whether the person may see personal data."""
        return REVEALER in self.roles


_TRIES_OF_A_PERSON: Final = 5
_TRIES_OF_AN_ADDRESS: Final = 50
_WITHIN_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions and the tries to sign in, in Redis, so that all consoles have them together.

    A person's sessions have an epoch: signing out ends it, and all of them with it.
    """

    client: Redis

    def count_try(self, address: str, name: str) -> float:
        """Count a try, unless there were too many; return the seconds until one is allowed, or 0.

        Raises:
            RedisUnavailable: Nothing may have been counted, so nobody signs in.
        """
        names = (keys.console_tries(address, name), keys.console_tries(address))
        limits = (_TRIES_OF_A_PERSON, _TRIES_OF_AN_ADDRESS, _WITHIN_MS)
        (wait_ms,) = run(self.client, "sign_in_try", [ScriptCall(names, limits)])
        return float(wait_ms) / 1_000

    def forget_tries(self, address: str, name: str) -> None:
        """Forget the tries of a person who has signed in."""
        self.client.delete(keys.console_tries(address, name))

    def begin(self, name: str) -> str:
        """Return the epoch of a person's sessions, which begins with the first of them."""
        self.client.set(keys.console_epoch(name), secrets.token_hex(8), nx=True)
        return self.epoch(name)

    def epoch(self, name: str) -> str:
        """Return the epoch of a person's sessions; "" = there is no session."""
        text: Any = self.client.get(keys.console_epoch(name))
        return (text or b"").decode()

    def end(self, name: str) -> None:
        self.client.delete(keys.console_epoch(name))


def _mark(user: ConsoleUser) -> str:
    hashed = user.password.reveal() if user.password and user.password.is_set else ""
    return hashlib.sha256(hashed.encode()).hexdigest()[:16]


COOKIE: Final = "segrelay_console"
SECURE_COOKIE: Final = "__Host-segrelay_console"


class Rights:
    """The users of a console, their rights, and the cookies of their sessions.

    Raises:
        ConfigurationInvalid: A secret is not set, or a password is no hash.
    """

    def __init__(self, section: ConsoleSettings) -> None:
        for user in section.users.values():
            if user.password:
                _parse_hash(user.password.reveal())
        secret = section.secret.reveal().encode() if section.secret else os.urandom(32)
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(secret).digest()))
        self.section = section

    @property
    def has_passwords(self) -> bool:
        """Say whether anybody can sign in with a password."""
        return any(user.password for user in self.section.users.values())

    @property
    def is_secure(self) -> bool:
        """Say whether browsers reach the console through TLS."""
        return self.section.public_url.startswith("https:")

    @property
    def cookie(self) -> str:
        return SECURE_COOKIE if self.is_secure and not self.prefix else COOKIE

    @property
    def prefix(self) -> str:
        """Return the path under which a proxy serves the console; "" = it has none."""
        return urlsplit(self.section.public_url).path.rstrip("/")

    def person(
        self, address: str, headers: Mapping[str, str], cookies: Mapping[str, str]
    ) -> Person | None:
        """Return the person of a request; None if nobody has signed in."""
        if self.section.is_open:
            return Person()
        proxy = self.section.proxy
        if proxy and _is_in(address, proxy.addresses):
            name = headers.get(proxy.header.lower(), "").strip()
            if name or proxy.header:
                return self._named(name, proxy.roles) if name else None
        name, epoch = self._open(cookies.get(self.cookie, ""))
        return self._named(name, (), epoch) if name else None

    def _named(
        self, name: str, otherwise: tuple[ConsoleRole, ...], epoch: str | None = None
    ) -> Person | None:
        user = self.section.users.get(name)
        roles = user.roles if user else otherwise
        return Person(name, frozenset({VIEWER, *roles}), epoch) if roles else None

    def client(self, address: str, headers: Mapping[str, str]) -> str:
        """Return the address of whoever asks: behind a trusted proxy, the one that it names."""
        addresses = self.section.proxy.addresses if self.section.proxy else ()
        for named in reversed(headers.get("x-forwarded-for", "").split(",")):
            if not _is_in(address, addresses):
                break
            address = named.strip() or address
        return address

    def sign_in(self, name: str, password: str, epoch: Callable[[str], str] = str) -> str:
        """Return the cookie of a new session; "" if name or password is wrong.

        Args:
            name: The name that was typed.
            password: The password that was typed.
            epoch: A function that returns the epoch of a person's sessions.
        """
        user = self.section.users.get(name)
        hashed = user.password.reveal() if user and user.password else _nobodys()
        is_right = is_password(password, hashed)
        if not (is_right and user and user.password):
            return ""
        content = orjson.dumps([name, _mark(user), epoch(name)])
        return self._fernet.encrypt(content).decode().rstrip("=")

    def _open(self, cookie: str) -> tuple[str, str]:
        """Return the person and the epoch of a cookie; "" = it is not ours, or has ended."""
        try:
            seconds = round(self.section.session_seconds)
            name, mark, epoch = orjson.loads(
                self._fernet.decrypt(cookie + "=" * (-len(cookie) % 4), ttl=seconds)
            )
        except (InvalidToken, ValueError, TypeError):
            return "", ""
        user = self.section.users.get(name)
        return (name, epoch) if user and user.password and mark == _mark(user) else ("", "")

    def is_our_host(self, host: str) -> bool:
        """Say whether a `Host` header names this console.

        Without it, another site whose name leads to 127.0.0.1 could read what is open to this
        machine (DNS rebinding).
        """
        if self.section.public_url and host == urlsplit(self.section.public_url).netloc:
            return True
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not (name and port.isdigit()):
            name = host
        is_for_all = not (self.section.is_open or self.section.public_url)
        return is_loopback(name.strip("[]")) or is_for_all

    def refuse_link(self, headers: Mapping[str, str], query: Iterable[str]) -> str:
        """Return why a page is not made for another site, which may only link to it; "" = it is."""
        is_ours = headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
        # A page with one of these parameters does more than to read a little.
        is_cheap = {"try", "all"}.isdisjoint(query)
        is_link = headers.get("sec-fetch-mode") == "navigate" and is_cheap
        told = "Another site asks for this page: open it from the console's own pages"
        return "" if is_ours or is_link else told

    def refuse_origin(self, headers: Mapping[str, str]) -> str:
        """Return why a request that acts does not come from a page of this console; "" = it does.

        Browsers send `Sec-Fetch-Site` only to this machine and through TLS.
        """
        site = headers.get("sec-fetch-site", "")
        if site != "same-origin":
            told = f"says {site}" if site else "is missing"
            return (
                f"Sec-Fetch-Site {told}: acts are taken only from the console's own pages, and"
                " only on this machine or through https"
            )
        origin, host = headers.get("origin", ""), headers.get("host", "")
        allowed = {f"http://{host}", f"https://{host}"}
        if self.section.public_url:
            parts = urlsplit(self.section.public_url)
            allowed = {f"{parts.scheme}://{parts.netloc}"}
            if is_loopback(urlsplit(f"//{host}").hostname or ""):
                allowed.add(f"http://{host}")
        if origin not in allowed:
            return "Origin is that of another site: acts are taken only from the console's pages"
        return ""


@cache
def _nobodys() -> str:
    """Return a hash to compare with for unknown names, so that the answer takes as long."""
    return hash_password("")


def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in ipaddress.ip_network(network) for network in networks)
