"""Two audiences that syncs compare during a run: one of Lytics, and one of a file.

The people of the first join and leave between the disruptions; no event tells it, so whatever
Insider holds of them in the end was found by a sync whose steps run in the workers that are
killed. The file is rewritten in place while a sync reads it. Whoever is in all of its versions must
never be taken out, and in the end the last version is true.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.producer.sync.sources import CALM_SECONDS
from segrelay.producer.sync.store import CERTAIN, Phase, Run, SyncStore
from segrelay.worker.contract.redis.client import Redis
from tests.rig import Rig, trigger_pairs

REGULARS: Final = "regulars"
EXPORTED: Final = "exported"
EXIT_TRIGGER: Final = f"{EXPORTED}-exit"
_FOLDER: Final = "exports"
CONFIGURATION: Final = f"""
[lytics]
base_url = "SANDBOX"
token = "chaos"

[sync.{REGULARS}]
audience = "{REGULARS}"
every = "2s"
{trigger_pairs([REGULARS])}
[sync.{EXPORTED}]
audience = "{EXPORTED}"
source = "file:{_FOLDER}/*.ndjson"
every = "3s"
{trigger_pairs([EXPORTED])}"""
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
        moves = [{"uid": f"r{n}", "audience": REGULARS, "change": how} for n, how in changes]
        self.rig.sandbox.post("lytics/moves", moves)
        self.moves += len(moves)
        self._moved_ms = int(1_000 * time.time())

    def are_found(self) -> bool:
        """Say whether a whole run of the sync began after the last move, and has ended.

        Where no run ends during several disruptions, more have left than the sync believes, and a
        person has to confirm it.
        """
        redis = self.rig.settings.redis
        last = SyncStore(self.rig.client, REGULARS, redis).peek().last
        if last.get("outcome") == "doubted":
            self.rig.command("sync", "confirm", REGULARS)
        return last.get("outcome") in CERTAIN and last["begun_ms"] > self._moved_ms

    def truth(self) -> dict[str, list[str]]:
        """Return the audiences of each person, by email, according to Lytics."""
        members: list[dict[str, Any]] = self.rig.sandbox.get("lytics/members", audience=REGULARS)
        return {row["email"]: [REGULARS] for row in members}

    def accepted(self) -> int:
        """Return how many deliveries the sync has published."""
        counts = self.rig.counts()
        return sum(counts.get(f"accepted|{REGULARS}-{how}", 0) for how in ("enter", "exit"))

    def _row(self, number: int) -> dict[str, Any]:
        return {
            "_uid": f"r{number}",
            "email": f"regular{number}@example.com",
            "first_name": "Ann",
            "_segments": [REGULARS],
            "segments": [REGULARS] if number in self._inside else [],
        }


_MOVERS: Final = 40
"""People who join with a version and leave with the next; a sync asks only about more than 100."""
_MEETS_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.03
_WRITING_SECONDS: Final = (0.0, 0.3)
_PAUSE_SECONDS: Final = 3.0


@dataclass(slots=True)
class RewrittenFile:
    """Rewrites an export, each time while a sync scans it.

    Args:
        count: The number of people in every version.
        times: The number of rewrites that are planned.
        written: The number of rewrites so far.
        met: The number of rewrites during a scan.
    """

    rig: Rig
    rng: random.Random
    count: int
    times: int
    written: int = 0
    met: int = 0
    _written_ms: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Write the first version, and start to rewrite it."""
        self._path.parent.mkdir()
        self._write()
        self._thread = threading.Thread(target=self._run, name="rewriting", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop rewriting the export."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    @property
    def stayers(self) -> list[str]:
        """Return the email addresses of the people who are in every version."""
        return [f"exported{number}@example.com" for number in range(self.count)]

    def truth(self) -> dict[str, list[str]]:
        """Return the audiences of each person, by email, according to the last version."""
        return {row["email"]: [EXPORTED] for row in self._rows()}

    def is_found(self) -> bool:
        """Say whether a whole run of the sync began after the last rewrite, and has ended."""
        redis = self.rig.settings.redis
        last = SyncStore(self.rig.client, EXPORTED, redis).peek().last
        is_certain = last.get("outcome") in CERTAIN and not last.get("restarts")
        return is_certain and last["begun_ms"] > self._written_ms

    def accepted(self) -> int:
        """Return how many deliveries the sync has published."""
        counts = self.rig.counts()
        return sum(counts.get(f"accepted|{EXPORTED}-{how}", 0) for how in ("enter", "exit"))

    @property
    def _path(self) -> Path:
        return self.rig.folder / _FOLDER / "members.ndjson"

    def _run(self) -> None:
        for _ in range(self.times):
            if self._stop.wait(_PAUSE_SECONDS):
                return
            self.met += self._meet_scan()
            self._write()

    def _meet_scan(self) -> bool:
        """Wait until a scan has read a part of the file, and return whether one has."""
        gives_up_at = time.monotonic() + _MEETS_SECONDS
        while time.monotonic() < gives_up_at and not self._stop.wait(_LOOK_SECONDS):
            run = self.rig.ask_redis(self._peek, away=None)
            if run and run.phase is Phase.SCAN and run.start:
                return True
        return False

    def _peek(self, client: Redis) -> Run | None:
        return SyncStore(client, EXPORTED, self.rig.settings.redis).peek()

    def _write(self) -> None:
        """Write the next version into the same file, in two pieces."""
        self.written += 1
        rows = self._rows()
        self.rng.shuffle(rows)
        text = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        with self._path.open("wb") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            time.sleep(self.rng.uniform(*_WRITING_SECONDS))
            file.write(text[len(text) // 2 :])
        calm = time.time() - CALM_SECONDS - 1
        os.utime(self._path, (calm, calm))
        self._written_ms = int(1_000 * time.time())

    def _rows(self) -> list[dict[str, Any]]:
        movers = [f"mover{self.written}-{number}@example.com" for number in range(_MOVERS)]
        shared = {"first_name": "Ann", "_segments": [EXPORTED]}
        return [{"email": email, **shared} for email in (*self.stayers, *movers)]
