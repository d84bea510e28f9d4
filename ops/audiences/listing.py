"""The rows of `audience list`: ids, triggers, syncs, and the counts of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from redis import Redis

from ops.audiences.membership import AudienceCounts
from ops.terminal.moments import shown_us
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import ALL_AUDIENCES, Settings


def known_ids(client: Redis) -> dict[str, str]:
    """Return the slug that each id stands for."""
    with redis_errors():
        answer = cast("Mapping[bytes, bytes]", client.hgetall(keys.AUDIENCES))
    return {key.decode(): value.decode() for key, value in answer.items()}


def slugs(settings: Settings, client: Redis, counts: AudienceCounts) -> set[str]:
    """Return the slugs of all audiences that are configured, known by an id, or in the ledger."""
    known = known_ids(client)
    configured = {name for each in settings.triggers.values() for name in each.audiences}
    configured |= {schedule.audience for schedule in settings.sync.values()}
    slugs = {known.get(name, name) for name in configured - {ALL_AUDIENCES}}
    return slugs | set(known.values()) | {slug for slug, _ in counts.found}


def row_of(
    settings: Settings, slug: str, known: Mapping[str, str], counts: AudienceCounts
) -> dict[str, Any]:
    """Return the row of one audience."""
    ids = sorted(audience_id for audience_id, stands_for in known.items() if stands_for == slug)
    return {
        "slug": slug,
        "ids": ids,
        "triggers": [
            trigger.name
            for trigger in settings.triggers.values()
            if any(trigger.wants(name) for name in (slug, *ids))
        ],
        "syncs": [
            schedule.name
            for schedule in settings.sync.values()
            if schedule.audience in (slug, *ids)
        ],
        "destinations": {
            destination: {
                "members": count.members,
                "entered": count.entered,
                "left": count.left,
                "last_event": shown_us(count.last_us) if count.last_us else None,
            }
            for (audience, destination), count in sorted(counts.found.items())
            if audience == slug
        },
    }
