"""The changes of operators during a run: backfills are aborted.

They do it one after the other in a thread of their own. The disruptions go on meanwhile, so each
command is given until it succeeds. The readers of backfills that are aborted wait for room: their
own configuration has a low mark. Whatever of a job was not accepted when `segrelay backfill abort`
returned must never be delivered, even by a reader that was stopped (SIGSTOP) before and goes on
after it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.ops.demo.rig import Rig, kill_group, trigger_pairs
from segrelay.ops.run.up import own_command
from segrelay.producer.publishing.writing import count_waiting
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import BACKFILL
from segrelay.worker.errors import OperationsMustAct, SegrelayError
from tools.chaos.plan import Plan
from tools.chaos.syncing import RewrittenFile

_PAUSE_SECONDS: Final = 0.3


@dataclass(slots=True)
class PatientOperator:
    """Runs commands as an operator would, and repeats each one until it succeeds.

    Args:
        stop_at: The end of the whole run, by the monotonic clock.
        problems: Tracebacks that commands have printed.
    """

    rig: Rig
    stop_at: float
    problems: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def insist(self, *arguments: str) -> None:
        """Repeat a command until it succeeds.

        Raises:
            OperationsMustAct: It never did.
        """
        self._insist(*arguments)

    def document(self, *arguments: str) -> dict[str, Any]:
        """Repeat a command with `--json` until it succeeds, and return the document that it prints.

        Raises:
            OperationsMustAct: It never did.
        """
        found: dict[str, Any] = orjson.loads(self._insist(*arguments, "--json"))
        return found

    def pause(self) -> bool:
        """Wait a moment, and return whether there is time to try again."""
        return not self._over.wait(_PAUSE_SECONDS) and time.monotonic() < self.stop_at

    def end(self) -> None:
        """Stop repeating commands."""
        self._over.set()

    def _insist(self, *arguments: str) -> bytes:
        while True:
            left_seconds = max(1.0, self.stop_at - time.monotonic())
            done = self.rig.command(*arguments, timeout=left_seconds)
            if not done.returncode:
                return done.stdout
            said = done.stderr.decode(errors="replace")
            if "Traceback" in said:
                self.problems.append(f"{' '.join(arguments)}: {said[-1_000:]}")
            if not self.pause():
                raise OperationsMustAct(f"`{' '.join(arguments)}` never succeeded: {said[-500:]}")


ABORTED: Final = "aborted"
ABORTED_TRIGGERS: Final = trigger_pairs([ABORTED])
_ROW_BYTES: Final = 900
"""Bytes of filler in a row: a thousand rows make a block, and a reader waits between two blocks."""
_WAITS_SECONDS: Final = 180.0
_FROZEN_SECONDS: Final = 3.0
_ENDS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class AbortedJob:
    """A job whose reader waited when it was aborted, and what had been accepted by then."""

    name: str
    accepted: int


@dataclass(slots=True)
class AbortedJobs:
    """Starts backfills, and aborts them while their readers wait for room.

    Args:
        rows: The number of rows of each job.
        problems: Failures of the run itself.
    """

    rig: Rig
    operator: PatientOperator
    rows: int
    jobs: list[AbortedJob] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _started: int = 0

    def abort_one(self, *, is_frozen: bool) -> None:
        """Start a job, and abort it while its reader waits.

        Args:
            is_frozen: The reader is stopped before the abort, and goes on after it.
        """
        for _ in range(_TRIES):
            name = f"{ABORTED}-{self._started}"
            self._started += 1
            with self._started_reader(name) as reader:
                if self._waits(name, reader):
                    self._abort(name, reader, is_frozen=is_frozen)
                    return
        self.problems.append("no reader of a job that is to be aborted ever waited for room")

    def judged(self, held: Mapping[str, list[str]]) -> tuple[int, int]:
        """Return how many deliveries were made despite an abort, and how many are missing.

        Args:
            held: The audiences of everybody at Insider, by email.
        """
        unwanted = missing = 0
        for job in self.jobs:
            found = self._status(job.name)
            reached = sum(email.startswith(f"{job.name}.") for email in held)
            unwanted += max(0, found["accepted"] - job.accepted)
            unwanted += max(0, reached - found["accepted"])
            missing += max(0, found["delivered"] - reached)
        return unwanted, missing

    def accepted(self) -> int:
        """Return how many deliveries of all these jobs were accepted, aborted or not."""
        return self.rig.counts().get(f"accepted|{ABORTED}-enter", 0)

    def _abort(self, name: str, reader: subprocess.Popen[bytes], *, is_frozen: bool) -> None:
        if is_frozen:
            os.killpg(reader.pid, signal.SIGSTOP)
        self.operator.insist("backfill", "abort", name, "--yes")
        self.jobs.append(AbortedJob(name, self._status(name)["accepted"]))
        if is_frozen:
            time.sleep(_FROZEN_SECONDS)
            os.killpg(reader.pid, signal.SIGCONT)
        try:
            reader.wait(_ENDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.problems.append(f"the reader of {name} did not end after the abort")

    def _status(self, name: str) -> dict[str, Any]:
        return self.operator.document("backfill", "status", name)

    def _waits(self, name: str, reader: subprocess.Popen[bytes]) -> bool:
        """Wait until the reader reports that it waits for room, and return whether it did."""
        gives_up_at = time.monotonic() + _WAITS_SECONDS
        while reader.poll() is None and time.monotonic() < gives_up_at:
            if b"waiting: " in self._log(name).read_bytes():
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    @contextmanager
    def _started_reader(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        file = self._written(name)
        options = ("--job", name, "--audience", ABORTED, "--as-of", "now")
        with self._log(name).open("wb") as log:
            reader = subprocess.Popen(
                own_command("backfill", "start", str(file), *options),
                env={**self.rig.environment, "SEGRELAY_CONFIG": str(self._configuration(name))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            yield reader
        finally:
            kill_group(reader)
            file.unlink()

    def _log(self, name: str) -> Path:
        return self.rig.folder / f"{name}.log"

    def _written(self, name: str) -> Path:
        path = self.rig.folder / f"{name}.ndjson"
        shared = {"_segments": [ABORTED], "notes": "x" * _ROW_BYTES}
        emails = (f"{name}.{number}@example.com" for number in range(self.rows))
        path.write_bytes(b"".join(orjson.dumps({"email": e, **shared}) + b"\n" for e in emails))
        return path

    def _configuration(self, name: str) -> Path:
        """Write a configuration by which Redis counts as full after a third of the job's rows."""
        path = self.rig.folder / f"{name}.toml"
        text = self.rig.settings.source.read_text("utf-8")
        path.write_text(
            text.replace("[redis]", f"[redis]\nhigh_water = {self._waiting() + self.rows // 3}", 1),
            encoding="utf-8",
        )
        return path

    def _waiting(self) -> int:
        def count(client: Redis) -> int:
            return count_waiting(client, self.rig.settings, kind=BACKFILL)

        while self.operator.pause():
            waiting = self.rig.ask_redis(count, away=-1)
            if waiting >= 0:
                return waiting
        raise OperationsMustAct("Redis never came back.")


_COMMAND_SECONDS: Final = 130.0
"""Seconds to wait for the last command, longer than any should take; see `Rig.command`."""


@dataclass(slots=True)
class Histories:
    """The aborts and the rewriting of one run.

    Args:
        rng: Puts them into a random order; nobody else uses it.
    """

    plan: Plan
    rng: random.Random
    operator: PatientOperator
    aborted: AbortedJobs
    rewritten: RewrittenFile
    _problems: list[str] = field(default_factory=list)
    _thread: threading.Thread | None = None

    @classmethod
    def of(cls, rig: Rig, plan: Plan, stop_at: float) -> Histories:
        """Prepare the histories of a plan."""
        rng = random.Random(plan.seed + 3)  # noqa: S311 - repeatable on purpose
        operator = PatientOperator(rig, stop_at)
        return cls(
            plan,
            rng,
            operator,
            AbortedJobs(rig, operator, plan.aborted_rows),
            RewrittenFile(rig, random.Random(plan.seed + 4), plan.exported, plan.rewrites),  # noqa: S311
        )

    @property
    def problems(self) -> list[str]:
        """Return the problems of the histories, such as a command that never succeeded."""
        own = (self.operator, self.aborted)
        return [*self._problems, *(problem for each in own for problem in each.problems)]

    def start(self) -> None:
        """Start the histories."""
        self.rewritten.begin()
        self._thread = threading.Thread(target=self._run, name="histories", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the histories have ended, at most until the end of the run."""
        if self._thread:
            self._thread.join(max(0.0, self.operator.stop_at - time.monotonic()))
            if self._thread.is_alive():
                self._problems.append("a command of the histories did not end in time")
        self.rewritten.end()

    def end(self) -> None:
        """Stop the histories at once, so that none of their commands outlives the run."""
        self.operator.end()
        self.rewritten.end()
        if self._thread:
            self._thread.join(_COMMAND_SECONDS)

    def published(self) -> int:
        """Return the number of deliveries that the histories have published."""
        return self.aborted.accepted() + self.rewritten.accepted()

    def _run(self) -> None:
        try:
            for step in self._steps():
                step()
        except SegrelayError as error:
            self._problems.append(error.message)

    def _steps(self) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = [
            partial(self.aborted.abort_one, is_frozen=bool(number % 2))
            for number in range(self.plan.aborts)
        ]
        self.rng.shuffle(steps)
        return steps
