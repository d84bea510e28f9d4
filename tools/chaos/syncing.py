"""An audience that only the sandbox's Lytics knows, and that a sync compares during the run.

Its people join and leave between the disruptions. No event tells it, so whatever Insider holds of
them in the end was found by a sync whose steps run in the workers that are killed.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

from segrelay.ops.demo.rig import Rig, trigger_pairs
from segrelay.producer.sync.run import CERTAIN
from segrelay.producer.sync.store import SyncStore

AUDIENCE: Final = "regulars"
CONFIGURATION: Final = f"""
[lytics]
base_url = "SANDBOX"
token = "chaos"

[sync.{AUDIENCE}]
audience = "{AUDIENCE}"
every = "2s"
{trigger_pairs([AUDIENCE])}"""
_MOVED: Final = 5
"""People who join, and who leave, before each disruption; too few for a sync to ask a person."""


@dataclass(slots=True)
class Regulars:
    """The members of a synced audience, and the people who may become members.

    Args:
        count: About the number of members; twice as many people exist.
    """

    rig: Rig
    rng: random.Random
    count: int
    moves: int = 0
    _inside: set[int] = field(default_factory=set)
    _moved_ms: int = 0

    def begin(self) -> None:
        """Add all people to the sandbox's Lytics, half of them as members."""
        self._inside = set(range(0, 2 * self.count, 2))
        self.rig.sandbox.post("lytics/profiles", [self._row(n) for n in range(2 * self.count)])

    def move(self) -> None:
        """Make a few people join and a few leave."""
        outside = sorted(set(range(2 * self.count)) - self._inside)
        joining = self.rng.sample(outside, min(_MOVED, len(outside)))
        leaving = self.rng.sample(sorted(self._inside), min(_MOVED, len(self._inside)))
        self._inside = (self._inside | set(joining)) - set(leaving)
        changes = [(n, "enter") for n in joining] + [(n, "exit") for n in leaving]
        moves = [{"uid": f"r{n}", "audience": AUDIENCE, "change": how} for n, how in changes]
        self.rig.sandbox.post("lytics/moves", moves)
        self.moves += len(moves)
        self._moved_ms = int(1_000 * time.time())

    def are_found(self) -> bool:
        """Say whether a whole run of the sync began after the last move, and has ended.

        Where no run ends during several disruptions, more have left than the sync believes, and a
        person has to confirm it.
        """
        partitions = self.rig.settings.redis.numbering
        last = SyncStore(self.rig.client, AUDIENCE, partitions).peek().last
        if last.get("outcome") == "doubted":
            self.rig.command("sync", "confirm", AUDIENCE)
        return last.get("outcome") in CERTAIN and last["begun_ms"] > self._moved_ms

    def truth(self) -> dict[str, list[str]]:
        """Return the audiences of each person, by email, according to Lytics."""
        members: list[dict[str, Any]] = self.rig.sandbox.get("lytics/members", audience=AUDIENCE)
        return {row["email"]: [AUDIENCE] for row in members}

    def accepted(self) -> int:
        """Return how many deliveries the sync has published."""
        counts = self.rig.counts()
        return sum(counts.get(f"accepted|{AUDIENCE}-{how}", 0) for how in ("enter", "exit"))

    def _row(self, number: int) -> dict[str, Any]:
        return {
            "_uid": f"r{number}",
            "email": f"regular{number}@example.com",
            "first_name": "Ann",
            "_segments": [AUDIENCE],
            "segments": [AUDIENCE] if number in self._inside else [],
        }
