"""Pauses by a person, or of a trigger by itself: one hash, read before every drain.

What is paused keeps accepting; its streams are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from redis import Redis

from worker.contract import keys
from worker.contract.redis.acts import Act, carry_out
from worker.contract.redis.connection import redis_errors
from worker.contract.words import lane_of_job

Paused = Literal["destination", "trigger", "job"]
DESTINATION: Final = "destination"
TRIGGER: Final = "trigger"
JOB: Final = "job"
"""The kind of the pauses of jobs; a paused job's lane is not read."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The reason of a pause, with its author and time.

    Args:
        by: Who did it; `segrelay` where it paused itself.
        at: Since when, RFC 3339; "" = not known.
    """

    reason: str = ""
    by: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses of destinations, triggers and jobs, by name."""

    destinations: Mapping[str, Pause] = field(default_factory=dict)
    triggers: Mapping[str, Pause] = field(default_factory=dict)
    jobs: Mapping[str, Pause] = field(default_factory=dict)

    @property
    def lanes(self) -> frozenset[str]:
        """Return the lanes of the jobs that are paused; no trigger has a lane's name."""
        return frozenset(map(lane_of_job, self.jobs))

    def of(self, kind: Paused) -> Mapping[str, Pause]:
        """Return the pauses of one kind."""
        match kind:
            case "destination":
                return self.destinations
            case "trigger":
                return self.triggers
            case "job":
                return self.jobs


def field_of(kind: Paused, name: str) -> str:
    """Return the field under which a pause stands."""
    return f"{kind}|{name}"


def dumps(pause: Pause) -> bytes:
    """Return the text of a pause."""
    return orjson.dumps(pause)


def parse_pauses(stored: Mapping[bytes, bytes]) -> Pauses:
    """Return the pauses that the hash in Redis holds; one that can't be read still pauses."""
    found: dict[str, dict[str, Pause]] = {DESTINATION: {}, TRIGGER: {}, JOB: {}}
    for place, text in stored.items():
        kind, _, name = place.decode().partition("|")
        if kind in found and name:
            found[kind][name] = _loads(text)
    return Pauses(found[DESTINATION], found[TRIGGER], found[JOB])


def _loads(text: bytes) -> Pause:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Pause()
    if not isinstance(document, dict):
        return Pause()
    return Pause(*(str(document.get(part) or "") for part in ("reason", "by", "at")))


def read_pauses(client: Redis) -> Pauses:
    """Read from Redis which destinations, triggers and jobs are paused."""
    with redis_errors():
        stored: Any = client.hgetall(keys.PAUSED)
    return parse_pauses(stored)


def set_pause(client: Redis, kind: Paused, name: str, pause: Pause, act: Act | None = None) -> bool:
    """Pause a destination, trigger or job, or replace the reason; return whether it is new.

    The act is kept with it; None = it is paused by an act of many steps.
    """
    if act is None:
        with redis_errors():
            return bool(client.hset(keys.PAUSED, field_of(kind, name), dumps(pause)))
    words = ("HSET", field_of(kind, name), dumps(pause))
    return bool(carry_out(client, act, keys.PAUSED, *words))


def clear_pause(client: Redis, kind: Paused, name: str, act: Act | None = None) -> bool:
    """End a pause; returns whether there was one.

    The act is kept if there was one; None = the pause ends with an act of many steps.
    """
    if act is None:
        with redis_errors():
            return bool(client.hdel(keys.PAUSED, field_of(kind, name)))
    words = ("HDEL", field_of(kind, name))
    return bool(carry_out(client, act, keys.PAUSED, *words, only_if_changed=True))
