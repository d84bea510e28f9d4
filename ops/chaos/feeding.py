"""Feeds portions of events through `segrelay send`, several at once, until each is surely in."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from ops.rig import Rig

_PRODUCERS: Final = 3
_SEND_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.3
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
        confirmed: Deliveries that `send` called accepted; portions sent again count once.
        unsure: How often `send` ended without being sure, and was run again.
    """

    rig: Rig
    rng: random.Random
    stop_at: float
    confirmed: int = 0
    unsure: int = 0
    problems: list[str] = field(default_factory=list)
    _waiting: queue.Queue[Path | None] = field(default_factory=queue.Queue)
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
        """Hand a portion over."""
        path = self.rig.folder / f"portion-{self._portions}.ndjson"
        self._portions += 1
        path.write_bytes(b"\n".join(lines) + b"\n")
        self._waiting.put(path)

    def finish(self) -> None:
        """Wait until all portions are in."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(max(0.0, self.stop_at - time.monotonic()))

    def _feed(self) -> None:
        while (path := self._waiting.get()) is not None:
            self._send(path, self._lane(path))
            path.unlink()

    def _lane(self, path: Path) -> tuple[str, str]:
        with self._lock:
            option, value = self.rng.choice(_LANES)
        return option, path.stem if option == "--job" else value

    def _send(self, path: Path, lane: Iterable[str]) -> None:
        """Send a portion, again from its first line wherever the command was not sure."""
        while time.monotonic() < self.stop_at:
            answer = self.rig.command("send", str(path), "--json", *lane, timeout=_SEND_SECONDS)
            if not answer.returncode:
                report = orjson.loads(answer.stdout)
                with self._lock:
                    self.confirmed += report["accepted"]
                    if report["refused"] or report["unmatched"]:
                        self.problems.append(f"send refused something: {report}")
                return
            said = answer.stderr.decode(errors="replace")
            with self._lock:
                self.unsure += 1
                if "Traceback" in said:
                    self.problems.append(f"send: {said[-1_000:]}")
            time.sleep(_PAUSE_SECONDS)
        self.problems.append(f"{path.name} was never surely sent")
