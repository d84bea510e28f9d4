"""A check whether the configured Redis can be used with this configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from redis import Redis

from ops.embedded.lifecycle import find
from ops.insider.live_check import LiveFinding
from producer.publishing.audiences import AudienceBook, named_audience
from worker.adapters.redis.addresses import former_names, rename_hint
from worker.adapters.redis.meanings import read_identified
from worker.adapters.sender import HttpSender
from worker.contract.redis.claim import mismatches
from worker.contract.redis.connection import connect, wait_ready
from worker.contract.settings import Authorization, Settings
from worker.contract.settings.values.fields import EMBEDDED
from worker.core.verdicts import Verdict
from worker.destinations.tokens import Granted, read_grant, token_request
from worker.errors import OperationsMustAct, SegrelayError, UsageWrong

_PATIENCE_SECONDS: Final = 2.0


class RedisLook(NamedTuple):
    """The result of looking at Redis.

    Attributes:
        problems: Reasons why nothing starts with it.
        warnings: Settings that are probably not meant.
        notes: Reasons why it could not be asked.
        identified: Slugs whose id it knows, and these ids.
    """

    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    identified: Collection[str] = ()


def look_at_redis(settings: Settings) -> RedisLook:
    """Check Redis, which has to answer within two seconds; an embedded one is not started."""
    url = settings.redis.url
    if url == EMBEDDED:
        server = find(settings.redis.data_dir)
        if server is None:
            note = f"the embedded one of {settings.redis.data_dir} is not running."
            return RedisLook(notes=[f"Redis was not asked: {note}"])
        url = server.url
    try:
        wait_ready(url, _PATIENCE_SECONDS)
        with closing(connect(url, timeout_seconds=_PATIENCE_SECONDS)) as client:
            problems = mismatches(client, settings)
            names = former_names(client, settings)
            identified = read_identified(client)
            conflicts = list(_conflicts(client, settings))
    except OperationsMustAct as error:
        return RedisLook(notes=[f"Redis was not asked: {error.message}"])
    warnings = [*(rename_hint(old, new) for new, old in names.items()), *conflicts]
    return RedisLook(problems, warnings, identified=identified)


def _conflicts(client: Redis, settings: Settings) -> Iterator[str]:
    """Yield the syncs that tell an id which Redis knows as that of another audience."""
    for name, sync in settings.sync.items():
        book = AudienceBook(client, learns=False)
        try:
            named_audience(book, sync.audience, sync.audience_id, look_up=lambda one: one)
        except UsageWrong as error:
            yield f"{settings.source.name}: sync.{name}.audience_id: {error.message}"


_SECONDS: Final = 10.0


def check_tokens(settings: Settings) -> Iterator[LiveFinding]:
    """Yield a finding for each authorization that gets no token; the tokens are not kept."""
    for authorization in settings.authorizations.values():
        if not authorization.uses_token:
            continue
        place = f"authorizations.{authorization.name}"
        try:
            got = asyncio.run(_asked(authorization, ipv4_only=settings.delivery.ipv4_only))
        except SegrelayError as error:
            yield LiveFinding(place, "error", error.message)
        else:
            if not isinstance(got, Granted):
                yield LiveFinding(place, "error", str(getattr(got, "message", got)))


async def _asked(authorization: Authorization, *, ipv4_only: bool) -> Granted | Verdict:
    sender = HttpSender(ipv4_only=ipv4_only)
    try:
        answer = await sender.send(token_request(authorization), _SECONDS)
    finally:
        await sender.close()
    return read_grant(answer, authorization)
