"""Audiences: named by their slug; ids are aliases, learned from payloads that carry both.

A former slug is one, too: `segrelay audience rename` says for which slug its events count.

What was learned stands in Redis and is remembered here, so that a payload costs no question.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, cast

from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.words import Refusal
from worker.errors import PayloadRefused

_REMEMBERED_SECONDS: Final = 60.0
"""The seconds for which slugs are remembered; then a correction in Redis takes effect here too."""
_ASKED_AGAIN_SECONDS: Final = 1.0
"""The seconds between two questions to Redis about an unknown id, or about one in conflict."""


class AudienceBook:
    """The known slugs of audiences by their ids.

    Args:
        learns: Whether what payloads tell is written; a dry run only keeps it in mind.
    """

    def __init__(
        self,
        client: Redis,
        *,
        learns: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._learns = learns
        self._now = now
        self._slugs: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self._read_at: float | None = None
        self._asked: dict[str, float] = {}
        self.version = 0
        """A number that grows whenever something was learned about audiences."""

    def resolve(self, audience_id: str, slug: str) -> str:
        """Return the audience's slug; learn which id it has.

        Raises:
            PayloadRefused: `unknown_audience`, `audience_conflict`, `bad_event` without either.
        """
        if not audience_id:
            if slug:
                return slug
            raise PayloadRefused(
                Refusal.BAD_EVENT, "A segment event names no audience: no slug, no id."
            )
        known = self._known(audience_id, slug)
        if not slug:
            return known
        if self.now_called(known) == self.now_called(slug):
            return slug
        raise PayloadRefused(
            Refusal.AUDIENCE_CONFLICT,
            f"Audience {audience_id} is known as '{known}' and comes as '{slug}' now;"
            " `segrelay audience set` says which holds.",
        )

    def slug_of(self, audience_id: str) -> str:
        """Return the slug that was learned for an id, "" where none was."""
        self._refresh()
        return self._slugs.get(audience_id, "")

    def now_called(self, slug: str) -> str:
        """Return the present slug of an audience that may have been renamed."""
        self._refresh()
        return self._renamed.get(slug, slug)

    def _known(self, audience_id: str, slug: str) -> str:
        self._refresh()
        known = self._slugs.get(audience_id, "")
        if known and (known == slug or not slug):
            return known
        is_new = bool(slug) and not known
        if is_new or self._may_ask(audience_id):
            known = self._ask(audience_id, slug)
        if known:
            return known
        raise PayloadRefused(
            Refusal.UNKNOWN_AUDIENCE,
            f"Audience {audience_id} comes without a slug, and no payload has told it yet;"
            " `segrelay audience set` can.",
        )

    def _may_ask(self, audience_id: str) -> bool:
        now = self._now()
        last = self._asked.get(audience_id)
        if last is not None and now - last < _ASKED_AGAIN_SECONDS:
            return False
        if len(self._asked) > 10_000:  # noqa: PLR2004 - ids are made up by the sender
            self._asked.clear()
        self._asked[audience_id] = now
        return True

    def _ask(self, audience_id: str, slug: str) -> str:
        with redis_errors():
            if slug and self._learns:
                self._client.hsetnx(keys.AUDIENCES, audience_id, slug)
            answer = self._client.hget(keys.AUDIENCES, audience_id)
        if slug:
            self._read_renames()
        known = answer.decode() if isinstance(answer, bytes) else ""
        if not self._learns:
            known = known or self._slugs.get(audience_id, "") or slug
        if known and self._slugs.get(audience_id) != known:
            self._slugs[audience_id] = known
            self.version += 1
        return known

    def _refresh(self) -> None:
        now = self._now()
        if self._read_at is not None and now - self._read_at < _REMEMBERED_SECONDS:
            return
        with redis_errors():
            answer = cast("dict[bytes, bytes]", self._client.hgetall(keys.AUDIENCES))
        self._slugs = {key.decode(): value.decode() for key, value in answer.items()}
        self._read_renames()
        self._read_at = now
        self.version += 1

    def _read_renames(self) -> None:
        """Read the renamed audiences, after the ids: a renaming is written before its ids."""
        with redis_errors():
            answer = cast("dict[bytes, bytes]", self._client.hgetall(keys.RENAMED))
        self._renamed = {old.decode(): new.decode() for old, new in answer.items()}
