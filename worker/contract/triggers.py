"""The state of triggers in Redis: scope, versions of templates, pauses.

The scope of a trigger is the events that it delivers; what waits is judged by it once more.
What is paused keeps accepting; its streams are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.records import read_record
from segrelay.worker.contract.redis.acts import Act, carry_out
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import load_script, run_script
from segrelay.worker.contract.settings import Trigger
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import Direction, lane_of_job


@dataclass(frozen=True)
class Scope:
    """The direction and the audiences of a trigger.

    An entry that its trigger does not want when it is drained becomes a dead letter.

    Args:
        audiences: The slugs, also those that stand for the ids that the trigger names; None = all.
    """

    trigger: str
    on: Direction
    audiences: frozenset[str] | None

    @classmethod
    def of(cls, trigger: Trigger, slugs: Mapping[str, str]) -> Scope:
        """Return the scope of a trigger.

        Args:
            trigger: The trigger, as configured.
            slugs: The known slugs, by the ids of audiences.
        """
        if ALL_AUDIENCES in trigger.audiences:
            return cls(trigger.name, Direction(trigger.on), None)
        known = {slugs[name] for name in trigger.audiences if name in slugs}
        wanted = frozenset({*trigger.audiences, *known})
        return cls(trigger.name, Direction(trigger.on), wanted)

    def wants(self, header: Header) -> bool:
        """Say whether the trigger delivers an event."""
        return header.direction is self.on and (
            self.audiences is None or header.audience in self.audiences
        )


def label(trigger: str, edition: str) -> str:
    """Return `trigger|EDITION`, by which scripts know a trigger and its newest edition."""
    return f"{trigger}|{edition}"


def named_audiences(triggers: Iterable[Trigger]) -> list[str]:
    """Return the audiences that triggers name: slugs, and ids whose slugs have to be looked up."""
    names = {name for trigger in triggers for name in trigger.audiences} - {ALL_AUDIENCES}
    return sorted(names)


Paused = Literal["destination", "trigger", "job"]
DESTINATION: Final = "destination"
TRIGGER: Final = "trigger"
JOB: Final = "job"
"""The kind of the pauses of jobs; a paused job's lane is not read."""


DIES: Final = "everything dies of one cause"
"""The first words of the reason of a trigger that paused itself because of its dead letters."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The reason of a pause, with its author and time.

    Args:
        by: The person who did it; `segrelay` where it paused itself.
        at: The time of its begin, RFC 3339; "" = not known.
        edition: The `LoadedTrigger.edition` of a trigger that paused itself; as long as it is the
            newest one, the pause ends only if a person insists. "" = a person paused it.
    """

    reason: str = ""
    by: str = ""
    at: str = ""
    edition: str = ""


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
        return {DESTINATION: self.destinations, TRIGGER: self.triggers, JOB: self.jobs}[kind]


def field_of(kind: Paused, name: str) -> str:
    """Return the field under which a pause stands."""
    return f"{kind}|{name}"


def dumps(pause: Pause) -> bytes:
    """Return the text of a pause."""
    return orjson.dumps(pause)


def parse_pauses(stored: Mapping[bytes, bytes]) -> Pauses:
    """Return the pauses that the hash in Redis holds; one that can't be read still pauses."""
    found: dict[str, dict[str, Pause]] = {DESTINATION: {}, TRIGGER: {}, JOB: {}}
    for which, text in stored.items():
        kind, _, name = which.decode().partition("|")
        if kind in found and name:
            found[kind][name] = read_record(Pause, text) or Pause()
    return Pauses(found[DESTINATION], found[TRIGGER], found[JOB])


def read_pauses(client: Redis) -> Pauses:
    """Read from Redis which destinations, triggers and jobs are paused."""
    stored: Any = client.hgetall(keys.PAUSED)
    return parse_pauses(stored)


def set_pause(client: Redis, field_name: str, pause: Pause, act: Act | None = None) -> bool:
    """Pause a destination, trigger or job, or replace the reason; return whether it is new.

    The act is kept with it; None = it is paused by an act of many steps. See `field_of`.
    """
    if act is None:
        return bool(client.hset(keys.PAUSED, field_name, dumps(pause)))
    return bool(carry_out(client, act, keys.PAUSED, "HSET", field_name, dumps(pause)))


def clear_pause(client: Redis, field_name: str, act: Act | None = None) -> bool:
    """End a pause; returns whether there was one.

    The act is kept if there was one; None = the pause ends with an act of many steps.
    """
    if act is None:
        return bool(client.hdel(keys.PAUSED, field_name))
    words = ("HDEL", field_name)
    return bool(carry_out(client, act, keys.PAUSED, *words, only_if_changed=True))


_END: Final = load_script("pause_end")


def end_pause(client: Redis, kind: Paused, name: str, *, anyway: bool) -> bool | None:
    """End the pause of a destination or trigger; return whether there was one.

    None = it stays: the trigger paused itself, and its edition is still the newest. With `anyway`
    that does not matter.
    """
    args = (field_of(kind, name), "" if anyway else name)
    ended = run_script(client, _END, (keys.PAUSED, keys.FINGERPRINTS), args)
    return None if ended < 0 else bool(ended)
