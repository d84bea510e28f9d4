"""Feeds portions of events, several at once, until each is surely accepted.

Events come through `segrelay send`, as webhooks, and as backfills; state events, which a comparison
of memberships makes up, are published as a comparison does it.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis import Redis

from segrelay.ops.demo.rig import Rig
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.worker.contract.words import BACKFILL
from tools.chaos.ways import Bringer, Way

_PRODUCERS: Final = 3
_PAUSE_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = 0.1
_WAYS: Final[tuple[Way, ...]] = ("send", "send", "webhook", "webhook", "backfill")
_LANES: Final = (
    ("--lane", "live"),
    ("--lane", "live"),
    ("--lane", "backfill"),
    ("--job", "portion"),
)


@dataclass(slots=True)
class Feeder:
    """Several producers that share the portions.

    Attributes:
        confirmed: Deliveries that a producer called accepted; portions sent again count once.
        unsure: Attempts that were repeated because their result was unsure.
    """

    rig: Rig
    rng: random.Random
    stop_at: float
    bringer: Bringer
    confirmed: int = 0
    unsure: int = 0
    problems: list[str] = field(default_factory=list)
    _waiting: queue.Queue[Path | Sequence[bytes] | None] = field(default_factory=queue.Queue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _portions: int = 0

    def start(self) -> None:
        """Start the producers."""
        for number in range(_PRODUCERS):
            thread = threading.Thread(target=self._feed, name=f"producer-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def give(self, lines: Sequence[bytes]) -> None:
        """Queue a portion of payloads for the producers."""
        path = self.rig.folder / f"portion-{self._portions}.ndjson"
        self._portions += 1
        path.write_bytes(b"\n".join(lines) + b"\n")
        self._waiting.put(path)

    def give_states(self, payloads: Sequence[bytes]) -> None:
        """Queue payloads that tell the audiences of people, to be published as state events."""
        if payloads:
            self._waiting.put(payloads)

    def finish(self, meanwhile: Callable[[], None]) -> None:
        """Wait until all portions are accepted.

        Args:
            meanwhile: Called again and again until then.
        """
        for _ in self._threads:
            self._waiting.put(None)
        while any(thread.is_alive() for thread in self._threads):
            if time.monotonic() > self.stop_at:
                return
            meanwhile()
            time.sleep(_LOOK_SECONDS)

    def _feed(self) -> None:
        while (portion := self._waiting.get()) is not None:
            if isinstance(portion, Path):
                self._bring(portion)
                portion.unlink()
            else:
                self._publish(portion)

    def _bring(self, portion: Path) -> None:
        with self._lock:
            way = self.rng.choice(_WAYS)
        brought = self.bringer.bring(portion, way, self._lane(portion))
        with self._lock:
            self.confirmed += brought.confirmed
            self.unsure += brought.unsure
            self.problems += brought.problems

    def _lane(self, path: Path) -> tuple[str, str]:
        with self._lock:
            option, value = self.rng.choice(_LANES)
        return option, path.stem if option == "--job" else value

    def _publish(self, payloads: Sequence[bytes]) -> None:
        """Publish state events, and start over if Redis was lost in between."""
        while time.monotonic() < self.stop_at:
            if self.rig.ask_redis(lambda client: self._published(client, payloads), away=False):
                return
            with self._lock:
                self.unsure += 1
            time.sleep(_PAUSE_SECONDS)
        self.problems.append("some state events were never surely published")

    def _published(self, client: Redis, payloads: Sequence[bytes]) -> bool:
        publisher = Publisher(client, self.rig.settings)
        published = publisher.publish(payloads, PublishOptions(BACKFILL, state=True))
        with self._lock:
            self.confirmed += published.accepted
            if published.refused or published.unmatched:
                self.problems.append(f"publish refused state events: {published.problems[:3]}")
        return True
