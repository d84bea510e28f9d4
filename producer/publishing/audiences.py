"""Audiences: named by their slug; ids are aliases, learned from payloads that carry both.

What was learned stands in Redis and is remembered here for a minute, so that a payload needs no
query.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, cast

from segrelay.worker.contract import keys
from segrelay.worker.contract.events import has_id, with_id
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import AUDIENCE_ID_PATTERN, Refusal
from segrelay.worker.errors import PayloadRefused, UsageWrong

_REMEMBERED_SECONDS: Final = 60.0
"""The seconds for which slugs are remembered; then a correction in Redis takes effect here too."""
_ASKED_AGAIN_SECONDS: Final = 1.0
"""The seconds between two questions to Redis about an unknown id, or about one in conflict, and
between two about slugs whose id is not known."""


class AudienceStore:
    """The known slugs of audiences by their ids, and the other way round.

    Args:
        learns: True if what payloads tell is written to Redis; a dry run keeps it in this process
            only.
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
        self._ids: dict[str, str] | None = None
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
        self._refresh()
        resolved = self._known(audience_id, slug)
        if slug and resolved != slug:
            raise PayloadRefused(
                Refusal.AUDIENCE_CONFLICT,
                f"Audience {audience_id} is known as '{resolved}' and comes as '{slug}' now;"
                " `segrelay audience set` says which holds.",
            )
        return resolved

    def slug_of(self, audience_id: str) -> str:
        """Return the slug that was learned for an id, "" where none was."""
        self._refresh()
        return self._slugs.get(audience_id, "")

    def identified(self, profile: dict[str, Any], slug: str) -> dict[str, Any]:
        """Return a profile whose one segment event has the audience's id, if one is known.

        Events that are made from rows, scans and files have none of their own, and templates read
        it. An id that stands there is left as it is.
        """
        known = "" if has_id(profile) else self.id_of(slug)
        return with_id(profile, known) if known else profile

    def id_of(self, slug: str) -> str:
        """Return the id of an audience by its slug; "" = not known.

        Of several that were learned it is always the same one.
        """
        self._refresh()
        if not self._known_id(slug):
            self._refresh(_ASKED_AGAIN_SECONDS)
        return self._known_id(slug)

    def _known_id(self, slug: str) -> str:
        if self._ids is None:
            learned = sorted(self._slugs.items(), reverse=True)
            self._ids = {slug: audience_id for audience_id, slug in learned}
        return self._ids.get(slug, "")

    def _known(self, audience_id: str, slug: str) -> str:
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
        if slug and self._learns:
            self._client.hsetnx(keys.AUDIENCES, audience_id, slug)
        answer = self._client.hget(keys.AUDIENCES, audience_id)
        known = answer.decode() if isinstance(answer, bytes) else ""
        if not self._learns:
            known = known or self._slugs.get(audience_id, "") or slug
        if known and self._slugs.get(audience_id) != known:
            self._learn({**self._slugs, audience_id: known})
        return known

    def _learn(self, slugs: dict[str, str]) -> None:
        self._slugs, self._ids = slugs, None
        self.version += 1

    def _refresh(self, after_seconds: float = _REMEMBERED_SECONDS) -> None:
        now = self._now()
        if self._read_at is not None and now - self._read_at < after_seconds:
            return
        answer = cast("dict[bytes, bytes]", self._client.hgetall(keys.AUDIENCES))
        self._learn({key.decode(): value.decode() for key, value in answer.items()})
        self._read_at = now


def named_audience(
    store: AudienceStore,
    name: str,
    told_id: str = "",
    *,
    look_up: Callable[[str], str] = lambda _: "",
) -> tuple[str, str]:
    """Return slug and id of the audience that is named by its slug or its id.

    The id is "" where the person neither told it nor named the audience by it.

    Args:
        store: The audiences that are known; it learns what is told and looked up.
        name: The slug or id, as a person wrote it.
        told_id: The id that was told beside the name; "" = none.
        look_up: A function that finds the slug of an id that no payload has told; "" = it can't.

    Raises:
        UsageWrong: The slug of the id is not known, or the id is known for another audience.
    """
    slug = store.slug_of(name)
    is_id = bool(slug or AUDIENCE_ID_PATTERN.fullmatch(name))
    audience_id = told_id or (name if is_id else "")
    if is_id and audience_id != name:
        raise UsageWrong(f"The audience is named by its id {name}, and told to be {told_id}.")
    slug = slug or (look_up(name) if is_id else name)
    if not slug:
        raise UsageWrong(
            f"Audience {name} is an id whose slug is not known yet: name the slug, or tell it by"
            f" `segrelay audience set {name} SLUG`."
        )
    try:
        if audience_id:
            store.resolve(audience_id, slug)
    except PayloadRefused as refusal:
        raise UsageWrong(refusal.message) from refusal
    return slug, audience_id
