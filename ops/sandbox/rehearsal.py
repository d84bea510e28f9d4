"""Prepares a rehearsal: forgets the people of earlier ones, and lists endpoints' demands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from redis import Redis

from ops.sandbox.settings import EndpointRules
from ops.state.partitions import all_partitions, ask_each
from worker.contract.redis.connection import connect, redis_errors, resolve_url, wait_ready
from worker.contract.redis.scanning import scan_keys
from worker.contract.settings import Destination, Settings
from worker.contract.settings.http import Signature

_PATTERNS: Final = (
    ("l*", "string"),  # ledgers
    ("sync:*", "hash"),
    ("who", "hash"),
    ("reached", "zset"),
)
"""Patterns and types of a partition's keys that are about people at the sandbox; other keys may
match a pattern, but have another type."""


def forget_people(settings: Settings) -> int:
    """Forget the people of an earlier sandbox; waiting deliveries stay, and go to the new one.

    Returns:
        How many ledgers and lists of members there were.
    """
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url)) as client, redis_errors():
        unlinked = (
            ask_each(client, keys, lambda pipe, key: pipe.unlink(key))
            for keys in _keys(client, settings)
        )
        return sum(map(sum, unlinked))


def endpoints_of(settings: Settings) -> dict[str, EndpointRules]:
    """Return the demands that each `http` destination of a rehearsal makes on its requests."""
    return {
        name: EndpointRules(token=_uses_token(settings, one), sign=_signatures(settings, one))
        for name, one in settings.destinations.items()
        if one.api == "http"
    }


def _uses_token(settings: Settings, destination: Destination) -> bool:
    authorization = settings.authorization_of(destination)
    return authorization is not None and authorization.uses_token


def _signatures(settings: Settings, destination: Destination) -> tuple[Signature, ...]:
    """Return the signatures of a destination's triggers; none if one of them does not sign."""
    signs = [settings.http_of(one).sign for one in settings.triggers_of(destination.name)]
    different = [sign for at, sign in enumerate(signs) if sign and sign not in signs[:at]]
    return tuple(different) if all(signs) else ()


def _keys(client: Redis, settings: Settings) -> Iterator[list[bytes]]:
    places = all_partitions(client, settings)
    for pattern, kind in _PATTERNS:
        yield from scan_keys(client, places, pattern, kind)
