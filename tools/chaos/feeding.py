"""Feeds portions of events, several at once, each repeated until it is surely accepted.

Events come through `segrelay send`, as webhooks, and as backfills: processes that may be killed at
any moment. State events, which a comparison of memberships makes up, are published as it does.
"""

from __future__ import annotations

import queue
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import orjson

from segrelay.ops.run.up import own_command
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import BACKFILL
from tests.rig import Rig

Way = Literal["send", "webhook", "backfill"]
SECRET: Final = "chaos"  # noqa: S105 - of a run that ends in minutes
RECEIVER: Final = """\
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "chaos"
"""
_PAUSE_SECONDS: Final = 0.3
_POST_SECONDS: Final = 30.0
_BODY_PAYLOADS: Final = 50
_OK: Final = 200


@dataclass(slots=True)
class Readers:
    """The processes that read backfills at the moment, each of which can be killed."""

    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def started(self, rig: Rig, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start one of our commands, and remember it as long as it runs."""
        reader = rig.launch(
            own_command(*arguments),
            env=rig.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        with self._lock:
            self._running.add(reader)
        try:
            yield reader
        finally:
            with self._lock:
                self._running.discard(reader)

    def kill_one(self) -> bool:
        """Kill a reader with SIGKILL, and return whether there was one."""
        with self._lock:
            reader = next(iter(self._running), None)
            if reader is not None:
                reader.kill()
        return reader is not None


@dataclass(slots=True)
class BringResult:
    """The result of bringing a portion in.

    Args:
        confirmed: Deliveries that are surely in.
        unsure: The number of repeated attempts.
        problems: Answers that should not have been given.
    """

    confirmed: int = 0
    unsure: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bringer:
    """Brings portions of events in, and repeats what is unsure.

    Args:
        stop_at: The end of the whole run, by the monotonic clock.
        webhook_url: The URL of the receiver.
    """

    rig: Rig
    readers: Readers
    stop_at: float
    webhook_url: str

    @property
    def _left_seconds(self) -> float:
        """Return the seconds that a command may take: all that are left of the run, at least 1."""
        return max(1.0, self.stop_at - time.monotonic())

    def bring(self, portion: Path, way: Way, lane: str) -> BringResult:
        """Bring a portion in, and repeat it from its beginning until it is surely accepted."""
        brought = BringResult()
        attempt = {"send": self._send, "webhook": self._post, "backfill": self._backfill}[way]
        while time.monotonic() < self.stop_at:
            if attempt(portion, lane, brought):
                return brought
            brought.unsure += 1
            time.sleep(_PAUSE_SECONDS)
        brought.problems.append(f"{portion.name} was never surely in by {way}")
        return brought

    def _send(self, portion: Path, lane: str, brought: BringResult) -> bool:
        words = ("send", str(portion), "--json", "--lane", lane)
        answer = self.rig.command(*words, timeout=self._left_seconds)
        if answer.returncode:
            _note_traceback("send", answer.stderr, brought)
            return False
        _count(orjson.loads(answer.stdout), brought)
        return True

    def _backfill(self, portion: Path, _lane: str, brought: BringResult) -> bool:
        """Read a portion as a job; a reader that was killed is followed by one that resumes."""
        name = portion.stem
        if self._read(brought, "resume", name):
            return True
        return self._read(brought, "start", str(portion), "--job", name)

    def _read(self, brought: BringResult, *arguments: str) -> bool:
        with self.readers.started(self.rig, "backfill", *arguments, "--json") as reader:
            said, problems = reader.communicate(timeout=self._left_seconds)
        if reader.returncode:
            _note_traceback("backfill", problems, brought)
            return False
        _count(orjson.loads(said), brought)
        return True

    def _post(self, portion: Path, _lane: str, brought: BringResult) -> bool:
        """Post a portion as Lytics does: in arrays, each repeated until it is answered 200."""
        lines = portion.read_bytes().splitlines()
        while lines and time.monotonic() < self.stop_at:
            body = b"[" + b",".join(lines[:_BODY_PAYLOADS]) + b"]"
            answer = self._posted(body)
            if answer is None:
                brought.unsure += 1
                time.sleep(_PAUSE_SECONDS)
                continue
            brought.confirmed += answer["accepted"]
            if answer["quarantined"]:
                brought.problems.append(f"the receiver quarantined something: {answer}")
            lines = lines[_BODY_PAYLOADS:]
        return not lines

    def _posted(self, body: bytes) -> dict[str, Any] | None:
        headers = {"x-segrelay-secret": SECRET}
        try:
            answer = httpx.post(
                self.webhook_url, content=body, headers=headers, timeout=_POST_SECONDS
            )
        except httpx.HTTPError:
            return None
        found: dict[str, Any] = orjson.loads(answer.content)
        return found if answer.status_code == _OK else None


def _count(report: dict[str, Any], brought: BringResult) -> None:
    brought.confirmed += report["accepted"]
    if report["refused"] or report["unmatched"]:
        brought.problems.append(f"something was refused: {report}")


def _note_traceback(what: str, said: bytes, brought: BringResult) -> None:
    text = said.decode(errors="replace")
    if "Traceback" in text:
        brought.problems.append(f"{what}: {text[-1_000:]}")


_PRODUCERS: Final = 3
_LOOK_SECONDS: Final = 0.1
_WAYS: Final[tuple[Way, ...]] = ("send", "send", "webhook", "webhook", "backfill")
_LANES: Final = ("live", "live", "backfill")


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
            meanwhile: A function that is called again and again until then.
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
            lane = self.rng.choice(_LANES)
        brought = self.bringer.bring(portion, way, lane)
        with self._lock:
            self.confirmed += brought.confirmed
            self.unsure += brought.unsure
            self.problems += brought.problems

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
