"""The ways in which a portion of events comes in, each repeated until it is surely accepted.

`send`, the reader of a backfill and the receiver of webhooks are processes that may be killed at
any moment; what they have confirmed is in Redis.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import orjson

from segrelay.ops.demo.rig import Rig
from segrelay.ops.run.up import own_command

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

    def bring(self, portion: Path, way: Way, lane: tuple[str, str]) -> BringResult:
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

    def _send(self, portion: Path, lane: tuple[str, str], brought: BringResult) -> bool:
        answer = self.rig.command("send", str(portion), "--json", *lane, timeout=self._left_seconds)
        if answer.returncode:
            _note_traceback("send", answer.stderr, brought)
            return False
        _count(orjson.loads(answer.stdout), brought)
        return True

    def _backfill(self, portion: Path, _lane: tuple[str, str], brought: BringResult) -> bool:
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

    def _post(self, portion: Path, _lane: tuple[str, str], brought: BringResult) -> bool:
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
