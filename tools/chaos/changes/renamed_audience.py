"""An audience that gets another name while exits from it wait, and events of it still come."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson
from redis import Redis

from segrelay.ops.demo.rig import Rig
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import find_streams, read_entries
from segrelay.sandbox.people import AUDIENCES, Happening
from segrelay.worker.contract.words import Direction
from tools.chaos.changes.operator import PatientOperator

OLD: Final = AUDIENCES[2]
NEW: Final = "abandoned-carts"
_EXIT_TRIGGER: Final = "trigger:exit"
_EXITS_SECONDS: Final = 20.0
_BEFORE_ALL_SECONDS: Final = 3 * 86_400
_DELIVERIES_OF_A_MOVE: Final = 3
"""Deliveries for each moved person: an exit and its event under the old name, and an entrance under
the new name."""


def names_of(audience: str) -> tuple[str, ...]:
    """Return the names under which something that happened in an audience may be known."""
    return (OLD, NEW) if audience in {OLD, NEW} else (audience,)


@dataclass(slots=True)
class RenamedAudience:
    """Renames an audience once, while exits from it wait.

    Args:
        happened: All that happens; the people of these events are named to the command.
        is_renamed: Whether the command has succeeded.
        published: Deliveries that the command has published.
    """

    rig: Rig
    operator: PatientOperator
    happened: Iterable[Happening]
    is_renamed: bool = False
    published: int = 0
    problems: list[str] = field(default_factory=list)

    def rename(self) -> None:
        """Pause the exits, rename the audience when one waits, and resume the exits."""
        people = self._people()
        self.operator.insist("pause", _EXIT_TRIGGER)
        gives_up_at = time.monotonic() + _EXITS_SECONDS
        while (
            not (waits := self.rig.ask_redis(self._exit_waits, away=False))
            and time.monotonic() < gives_up_at
        ):
            self.operator.pause()
        if not waits:
            self.problems.append(f"no exit of {OLD} waited when it was renamed")
        command = ("audience", "rename", OLD, NEW, "--people", str(people), "--yes")
        self.published = _DELIVERIES_OF_A_MOVE * self.operator.document(*command)["published"]
        self.is_renamed = True
        self.operator.insist("resume", _EXIT_TRIGGER, "--no-wait")

    def in_new_words(self, happened: Iterable[Happening]) -> list[Happening]:
        """Return the events under the new name of the audience, if it was renamed."""
        if not self.is_renamed:
            return list(happened)
        return [
            replace(event, audience=NEW) if event.audience == OLD else event for event in happened
        ]

    def _people(self) -> Path:
        """Write the file of people whom the audience's events concern, dated before all events."""
        path = self.rig.folder / "people-of-the-renamed-audience.ndjson"
        emails = sorted({event.email for event in self.happened if event.audience == OLD})
        path.write_bytes(b"".join(orjson.dumps({"email": email}) + b"\n" for email in emails))
        before = time.time() - _BEFORE_ALL_SECONDS
        os.utime(path, (before, before))
        return path

    def _exit_waits(self, client: Redis) -> bool:
        return any(
            entry.header is not None
            and entry.header.audience == OLD
            and entry.header.direction is Direction.EXIT
            for stream in find_streams(client, all_partitions(client, self.rig.settings))
            for entry in read_entries(client, stream)
        )
