"""The meanings of triggers, with the slugs that Redis has for the ids that they name.

Also the audiences whose ids are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings, Trigger
from worker.contract.triggers.meaning import Meaning, named_audiences


def meanings(
    triggers: Sequence[Trigger],
    names: Sequence[str],
    slugs: Sequence[bytes | None],
    renamed: Mapping[bytes, bytes],
) -> dict[str, Meaning]:
    """Return the meanings of triggers, by the triggers' names.

    Args:
        triggers: As configured.
        names: The audiences that they name.
        slugs: The slug of each, if it is an id that is known.
        renamed: The new slugs of renamed audiences, by the former ones.
    """
    known = {name: slug.decode() for name, slug in zip(names, slugs, strict=True) if slug}
    moved = {former.decode(): slug.decode() for former, slug in renamed.items()}
    return {trigger.name: Meaning.of(trigger, known, moved) for trigger in triggers}


def read_meanings(client: Redis, settings: Settings) -> dict[str, Meaning]:
    """Read the meanings of all triggers, by the triggers' names."""
    triggers = list(settings.triggers.values())
    names = named_audiences(triggers)
    with redis_errors():
        slugs: Any = client.hmget(keys.AUDIENCES, names) if names else []
        renamed: Any = client.hgetall(keys.RENAMED)
    return meanings(triggers, names, slugs, renamed)


def read_identified(client: Redis) -> frozenset[str]:
    """Return the slugs of which an id is known, former ones too, and these ids."""
    with redis_errors():
        slugs: Any = client.hgetall(keys.AUDIENCES)
        renamed: Any = client.hgetall(keys.RENAMED)
    found = {*slugs, *slugs.values()}
    former = {old for old, new in renamed.items() if new in found}
    return frozenset(name.decode() for name in found | former)
