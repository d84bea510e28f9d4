"""Measure segrelay and its peers in one run: `make bench-peers` (ARGS="--events 20000 --runs 3").

All contestants have the same machine, events, sandbox and settings of Redis. All events are put
into the queue first; then the workers start, and the time is taken from the first user that the
sandbox receives to the last. With `--kills`, workers are killed meanwhile: users that are missing
at the end were lost, and users that came again were sent twice. `--limit` sets the requests a
minute that the sandbox takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from segrelay.ops.demo.rig import Rig
from segrelay.ops.embedded import lifecycle as embedded
from segrelay.ops.run.up import own_command
from segrelay.ops.sandbox import SandboxProcess
from segrelay.ops.terminal.console import print_json
from segrelay.sandbox.people import Happening, happenings, payloads
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.errors import OperationsMustAct, SegrelayError
from tools.bench.peers.bare import FEED
from tools.bench.rigs import send

_ROOT: Final = Path(__file__).parents[3]
_BULLMQ: Final = Path(__file__).parent / "bullmq"
_LOOK_SECONDS: Final = 0.05
_QUIET_SECONDS: Final = 15.0
"""Seconds without a new user after which a run is over, even if users are missing."""
_READY_SECONDS: Final = 60.0
"""Seconds within which the first user has to arrive."""
_LONGEST_SECONDS: Final = 900.0
_PROCESSES: Final = max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True)
class ContestResult:
    """The result of one run of a contestant.

    Args:
        events_per_second: Rate from the first time that the sandbox was seen to have users.
        cpu_seconds_per_thousand: Processor time of all worker processes for 1,000 events.
        lost: Events that never arrived.
        sent_twice: Users that the sandbox received more than once.
    """

    events: int
    seconds: float
    events_per_second: float
    requests_per_thousand: float
    cpu_seconds_per_thousand: float
    lost: int
    sent_twice: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that delivers events from a queue.

    Args:
        module: Module whose `enqueue(events)` fills the queue; "" if another program fills it.
        share: Share of the events that it gets; with all of them a slow one would take hours.
        engine: Jsonnet engine, if the contestant can use several.
        processes: Number of times that the command is started.
    """

    name: str
    module: str
    command: tuple[str, ...]
    share: float = 1.0
    engine: str = "rjsonnet"
    processes: int = 1
    needs_node: bool = False
    is_ours: bool = False

    def run(self, folder: Path, events: list[bytes], limit: int, kills: int) -> ContestResult:
        """Deliver events to a sandbox, killing the workers a number of times; return the result."""
        with SandboxProcess(limit_per_minute=limit) as sandbox, _redis(folder) as url:
            environment = {
                **os.environ,
                "PEER_REDIS": url,
                "PEER_SANDBOX": sandbox.url,
                "PEER_ENGINE": self.engine,
                "PYTHONPATH": str(_ROOT),
            }
            self._enqueue(folder, events, environment)
            workers = _PeerWorkers(self._commands(folder), environment, folder)
            with workers:
                return _watched(sandbox, workers, len(events), kills)

    def _commands(self, folder: Path) -> list[list[str]]:
        if self.is_ours:
            one = own_module(self.module)
        else:
            one = [each.format(python=_python_of_peers(), folder=folder) for each in self.command]
        return [one] * self.processes

    def _enqueue(self, folder: Path, events: list[bytes], environment: dict[str, str]) -> None:
        if self.needs_node:
            _install_bullmq(folder)
            command = ["node", str(folder / "bullmq" / "enqueue.js")]
        elif self.is_ours:
            command = own_module(self.module, FEED)
        else:
            command = [_python_of_peers(), "-m", self.module]
        ran = subprocess.run(
            command, input=b"\n".join(events), env=environment, capture_output=True, check=False
        )
        if ran.returncode:
            raise OperationsMustAct(f"{self.name} can't be fed: {ran.stderr.decode()[-1000:]}")


@dataclass(frozen=True, slots=True)
class Ourselves(Contestant):
    """The contestant segrelay, with the configuration that `init` writes."""

    def run(self, folder: Path, events: list[bytes], limit: int, kills: int) -> ContestResult:
        """Deliver events to a sandbox, killing the workers a number of times; return the result."""
        rig = Rig(
            folder,
            exit_events=False,
            rate=f"{limit}/min",
            sandbox_settings={"limit_per_minute": limit},
        )
        with rig:
            send(rig, events)
            command = own_command("worker", "--loglevel=WARNING")
            workers = _PeerWorkers([command], rig.environment, folder)
            with workers:
                return _watched(rig.sandbox, workers, len(events), kills)


class _PeerWorkers:
    """Starts and kills the workers of one task queue, and adds up their processor time."""

    def __init__(
        self, commands: list[list[str]], environment: dict[str, str], folder: Path
    ) -> None:
        self._commands = commands
        self._environment = environment
        self._log = folder / "workers.log"
        self._running: list[subprocess.Popen[bytes]] = []
        self._cpu_seconds_of_killed = 0.0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def cpu_seconds(self) -> float:
        """Return the processor time that all processes have used so far."""
        return self._cpu_seconds_of_killed + sum(
            _cpu_seconds_of_group(each.pid) for each in self._running
        )

    def kill_and_start_again(self) -> None:
        """Kill all processes with SIGKILL, and start them again."""
        self._cpu_seconds_of_killed = self.cpu_seconds()
        self._kill()
        self._start()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._running = [
                subprocess.Popen(
                    command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
                for command in self._commands
            ]

    def _kill(self) -> None:
        for each in self._running:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        self._running = []


def _watched(
    sandbox: SandboxProcess, workers: _PeerWorkers, events: int, kills: int
) -> ContestResult:
    """Wait until all users have arrived at the sandbox, or no more come; return the result."""
    started = begun = last_new = time.monotonic()
    first = seen = killed = 0
    summary: dict[str, Any] = {}
    while time.monotonic() < started + _LONGEST_SECONDS:
        summary = sandbox.get("summary")
        now = time.monotonic()
        received = summary["users"]["applied"]
        if received and not seen:
            begun, first = now, received
        if received != seen:
            seen, last_new = received, now
        if killed < kills and seen >= (killed + 1) * events / (kills + 1):
            killed += 1
            workers.kill_and_start_again()
        if (seen >= events and killed >= kills) or (
            now - last_new > (_QUIET_SECONDS if seen else _READY_SECONDS)
        ):
            break
        time.sleep(_LOOK_SECONDS)
    seconds = max(last_new - begun, _LOOK_SECONDS)
    twice = sandbox.get("repeats")["users_again"]
    arrived = min(events, seen - twice) if kills else min(events, seen)
    return ContestResult(
        events=events,
        seconds=round(seconds, 2),
        events_per_second=round((arrived - first or arrived) / seconds, 1),
        requests_per_thousand=round(1_000 * summary["requests"]["total"] / events, 1),
        cpu_seconds_per_thousand=round(1_000 * workers.cpu_seconds() / events, 3),
        lost=events - arrived,
        sent_twice=twice,
    )


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Start an embedded Redis, with the settings that segrelay gives it."""
    data_dir = folder / "redis"
    try:
        yield embedded.ensure_running(data_dir).url
    finally:
        embedded.stop(data_dir)


def _install_bullmq(folder: Path) -> None:
    target = folder / "bullmq"
    shutil.copytree(_BULLMQ, target)
    ran = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],  # noqa: S607 - npm is wherever it is
        cwd=target,
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        raise OperationsMustAct(f"npm can't install BullMQ: {ran.stderr.decode()[-500:]}")


def _cpu_seconds_of_group(group: int) -> float:
    """Return the processor time of a process group, with children that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _python_of_peers() -> str:
    """Return the Python interpreter that has the peers' packages."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        raise OperationsMustAct("PEER_PYTHON is not set: run it with `make bench-peers`.")
    return python


def _celery(module: str) -> tuple[str, ...]:
    options = ("worker", "--loglevel=WARNING", f"--concurrency={_PROCESSES}")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return ("{python}", "-m", "celery", "-A", f"tools.bench.peers.{module}", *options, *quiet)


CONTESTANTS: Final[Sequence[Contestant]] = (
    Ourselves("segrelay", "", ()),
    Contestant(
        "BullMQ on Node, template by hand",
        "",
        ("node", "{folder}/bullmq/worker.js"),
        processes=_PROCESSES,
        needs_node=True,
    ),
    Contestant(
        "celery-batches, rjsonnet",
        "tools.bench.peers.celery_batched",
        _celery("celery_batched"),
        share=0.1,
    ),
    Contestant(
        "Celery, a task an event, rjsonnet",
        "tools.bench.peers.celery_each",
        _celery("celery_each"),
        share=0.05,
    ),
    Contestant(
        "Celery, a task an event, C++ jsonnet",
        "tools.bench.peers.celery_each",
        _celery("celery_each"),
        share=0.003,
        engine="jsonnet",
    ),
    Contestant(
        "taskiq, asyncio, rjsonnet",
        "tools.bench.peers.taskiq_each",
        (
            "{python}",
            "-m",
            "taskiq",
            "worker",
            "tools.bench.peers.taskiq_each:broker",
            f"--workers={_PROCESSES}",
        ),
        share=0.05,
    ),
    Contestant(
        "bare loop, rjsonnet", "tools.bench.peers.bare", (), processes=_PROCESSES, is_ours=True
    ),
    Contestant(
        "bare loop, compiled templates",
        "tools.bench.peers.bare",
        (),
        engine="compiled",
        processes=_PROCESSES,
        is_ours=True,
    ),
)
"""All contestants, with the `share` of the events that lets each take about the same time."""


def main() -> int:
    """Measure the contestants, and print the results as one JSON document and a table."""
    arguments = _arguments()
    results: dict[str, list[ContestResult]] = {}
    for number in range(arguments.runs):
        for contestant in _chosen(arguments.only):
            sys.stderr.write(f"run {number + 1}: {contestant.name}\n")
            try:
                result = _run(contestant, arguments)
            except SegrelayError as error:
                sys.stderr.write(f"  left out: {error.message}\n")
            else:
                results.setdefault(contestant.name, []).append(result)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "arguments": vars(arguments),
        "results": {name: _summed_up(found) for name, found in results.items()},
    }
    print_json(report)
    _print_table(results)
    return 0


def _run(contestant: Contestant, arguments: argparse.Namespace) -> ContestResult:
    count = max(arguments.least, round(arguments.events * contestant.share))
    rng = random.Random(arguments.seed)  # noqa: S311 - invented people
    happened = _one_event_each(rng, count)
    events = list(payloads(happened, profile_bytes=arguments.profile_bytes))
    with tempfile.TemporaryDirectory(prefix="segrelay-peers-") as folder:
        return contestant.run(Path(folder), events, arguments.limit, arguments.kills)


def _one_event_each(rng: random.Random, people: int) -> list[Happening]:
    """Invent one entrance or exit for each person.

    No event supersedes another, so that contestants that ignore the order send the same.
    """
    invented = happenings(rng, events=people, people=people, ties=0.0)
    return [
        replace(each, email=f"person{number}@example.com") for number, each in enumerate(invented)
    ]


def _chosen(only: Sequence[str]) -> list[Contestant]:
    chosen = [each for each in CONTESTANTS if not only or each.name in only]
    if any(each.needs_node for each in chosen) and not shutil.which("node"):
        sys.stderr.write("BullMQ is left out: Node is not installed.\n")
        chosen = [each for each in chosen if not each.needs_node]
    return chosen


def _summed_up(found: list[ContestResult]) -> dict[str, Any]:
    speeds = [result.events_per_second for result in found]
    return {
        "events_per_second": {
            "min": min(speeds),
            "median": statistics.median(speeds),
            "max": max(speeds),
        },
        "runs": [asdict(result) for result in found],
    }


def _print_table(results: dict[str, list[ContestResult]]) -> None:
    ours = [result.events_per_second for result in results.get("segrelay", [])]
    base = statistics.median(ours) if ours else 0
    rows = [("", "events/s", "segrelay is", "requests/1,000", "CPU s/1,000", "lost", "twice")]
    for name, found in results.items():
        speed = statistics.median(result.events_per_second for result in found)
        last = found[-1]
        rows.append((
            name,
            f"{speed:,.0f}",
            f"{base / speed:.2f} x" if base and speed else "",
            f"{last.requests_per_thousand:,.1f}",
            f"{last.cpu_seconds_per_thousand:.2f}",
            f"{last.lost}",
            f"{last.sent_twice}",
        ))  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stderr.write(line.rstrip() + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--least", type=int, default=300, help="events for the slowest")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--profile-bytes", type=int, default=1_000)
    parser.add_argument("--limit", type=int, default=1_000_000, help="requests a minute")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
