"""Warnings about secrets that more people can read than need to."""

from __future__ import annotations

import stat
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from worker.contract.problems import Problem, place_of
from worker.contract.settings.authorizations import PARTNER_NAME
from worker.contract.settings.checks.tables import other_secrets, sending_secrets
from worker.contract.settings.values.secrets import LITERAL, Secret, is_reference

if TYPE_CHECKING:
    from worker.contract.settings import Settings

_HINT: Final = (
    'write "env:NAME" or "file:PATH", and change the secret if others have seen this file'
)
_NAMES: Final = (f"HEADERS.{PARTNER_NAME}", "CLIENT_ID", "USER")
"""The keys of an authorization whose values name an account, which is no secret by itself."""
_REDIS_URLS: Final = ("url", "broker_url")


def exposures(
    draft: Settings, redis: Mapping[str, Any], overridden: Container[str]
) -> Iterator[Problem]:
    """Yield a warning for each secret that more people can read than need to.

    Args:
        draft: The tables that were read.
        redis: The table `[redis]`, with what the environment puts in its place.
        overridden: Key paths whose values came from the environment.
    """
    file = draft.folder / ".env"
    if _others_can_read(file):
        yield Problem(".env", f"everybody on this machine can read {file}", "chmod 600 .env")
    for place, secret in _secrets(draft):
        if secret.origin == LITERAL and secret.is_set:
            yield Problem(place, "the secret itself stands in this file", _HINT)
    for key in _REDIS_URLS:
        url = redis.get(key, "")
        place = place_of(("redis", key))
        if place not in overridden and not is_reference(url) and urlsplit(url).password:
            yield Problem(place, "the password itself stands in this file", _HINT)


def _others_can_read(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _secrets(draft: Settings) -> Iterator[tuple[str, Secret]]:
    for authorization in draft.authorizations.values():
        path = place_of(("authorizations", authorization.name))
        for place, secret in authorization.secrets():
            if place.upper() not in _NAMES:
                yield f"{path}.{place}", secret
    yield from sending_secrets(draft)
    yield from other_secrets(draft)
