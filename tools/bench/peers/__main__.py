"""Measure segrelay and its peers in one run: `make bench-peers` (ARGS="--runs 7 --events 100000").

All contestants deliver the same people by the same template, the page's own: as it is in Jsonnet,
by hand in JavaScript. They have the same machine, stand-in for Insider and settings of Redis, and
must leave the same profiles at the stand-in. All events are in the queue first; then the workers
start, and rates and processor times are taken from the first user that the stand-in receives to the
last. Every second run has the reverse order.

With `--kills`, workers are killed meanwhile: users that are missing at the end were lost, and users
that came again were sent twice.
"""

from __future__ import annotations

import argparse
import fcntl
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import httpx
import orjson

from segrelay.ops import embedded
from segrelay.ops.run.up import own_command
from segrelay.ops.terminal.console import print_json
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.errors import OperationsMustAct, SegrelayError
from tests.rig import Rig, SandboxProcess
from tools.bench.peers.bare import FEED
from tools.bench.peers.rendering import PAGE
from tools.bench.rigs import processor_seconds_of, send

_ROOT: Final = Path(__file__).parents[3]
_BULLMQ: Final = Path(__file__).parent / "bullmq"
_LOOK_SECONDS: Final = 0.05
_QUIET_SECONDS: Final = 15.0
"""Seconds without a new user after which a run is over, even if users are missing."""
_READY_SECONDS: Final = 60.0
"""Seconds within which the first user has to arrive."""
_LONGEST_SECONDS: Final = 900.0
_COMPARED: Final = 200
"""Profiles of each run that are compared with those of the first."""
_PROCESSES: Final = max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True)
class ContestResult:
    """The result of one run of a contestant.

    Args:
        events_per_second: Rate from the first time that the stand-in was seen to have users.
        requests: Requests for 1,000 events.
        worker_cpu: Processor seconds of all worker processes for 1,000 events, in the same time.
        redis_cpu: Processor seconds of Redis, likewise.
        stand_in_cpu: Processor seconds of the stand-in for Insider, likewise.
        lost: Events that never arrived.
        sent_twice: Users that the stand-in received more than once.
    """

    events: int
    seconds: float
    events_per_second: float
    requests: float
    worker_cpu: float
    redis_cpu: float
    stand_in_cpu: float
    lost: int
    sent_twice: int


@dataclass(frozen=True, slots=True)
class Contest:
    """The events and the conditions of all contestants.

    Args:
        events: Payloads, each about another person.
        kills: The number of times that the workers are killed meanwhile.
    """

    events: list[bytes]
    limit_per_minute: int
    kills: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that delivers events from a queue.

    Args:
        module: Module whose `enqueue(events)` fills the queue; "" if another program fills it.
        share: Share of the events that it gets; with all of them a slow one would take hours.
        engine: Jsonnet engine, if the contestant can use several.
        processes: Number of times that the command is started.
        together: Events of one job, if the contestant runs on Node; 0 if it does not.
        only_named: True if it takes part only where it is named.
    """

    name: str
    module: str
    command: tuple[str, ...]
    share: float = 1.0
    engine: str = "rjsonnet"
    processes: int = 1
    together: int = 0
    is_ours: bool = False
    only_named: bool = False

    def run(self, folder: Path, contest: Contest) -> tuple[ContestResult, _Profiles]:
        """Deliver events to a stand-in for Insider, and return the result."""
        with (
            SandboxProcess(limit_per_minute=contest.limit_per_minute) as sandbox,
            _redis(folder) as redis,
        ):
            environment = {
                **os.environ,
                "PEER_REDIS": redis.url,
                "PEER_SANDBOX": sandbox.url,
                "PEER_ENGINE": self.engine,
                "PEER_TEMPLATE": str(PAGE.with_suffix(".js")),
                "PEER_TOGETHER": str(self.together),
                "PYTHONPATH": str(_ROOT),
            }
            self._enqueue(contest.events, environment)
            workers = _PeerWorkers(self._commands(), environment, folder)
            with workers:
                found = _watched(sandbox, workers, redis.pid, contest)
            return found, _profiles(sandbox, contest.events)

    def _commands(self) -> list[list[str]]:
        if self.is_ours:
            one = own_module(self.module)
        elif self.together:
            one = ["node", str(_node_folder() / "worker.js")]
        else:
            one = [_python_of_peers(), *self.command]
        return [one] * self.processes

    def _enqueue(self, events: list[bytes], environment: dict[str, str]) -> None:
        if self.together:
            _install_bullmq()
            command = ["node", str(_node_folder() / "enqueue.js")]
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
    """The contestant segrelay, with its usual configuration and the page's template."""

    def run(self, folder: Path, contest: Contest) -> tuple[ContestResult, _Profiles]:
        """Deliver events to a stand-in for Insider, and return the result."""
        rig = Rig(
            folder,
            exit_events=False,
            rate=f"{contest.limit_per_minute}/min",
            sandbox_settings={"limit_per_minute": contest.limit_per_minute},
            templates={"insider/enter.jsonnet": PAGE.read_text("utf-8")},
        )
        with rig:
            send(rig, contest.events)
            command = own_command("worker", "--loglevel=WARNING")
            workers = _PeerWorkers([command], rig.environment, folder)
            with workers:
                found = _watched(rig.sandbox, workers, rig.redis_pid(), contest)
            return found, _profiles(rig.sandbox, contest.events)


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


@dataclass(frozen=True, slots=True)
class _Use:
    """The processor seconds of the workers, of Redis and of the stand-in up to one moment."""

    workers: float
    redis: float
    stand_in: float


def _watched(
    sandbox: SandboxProcess, workers: _PeerWorkers, redis_pid: int, contest: Contest
) -> ContestResult:
    """Wait until all users have arrived at the stand-in, or no more come; return the result."""

    def used() -> _Use:
        redis, stand_in = map(processor_seconds_of, (redis_pid, sandbox.pid))
        return _Use(workers.cpu_seconds(), redis, stand_in)

    events, kills = len(contest.events), contest.kills
    started = begun = last_new = time.monotonic()
    first = seen = killed = 0
    before = after = used()
    summary: dict[str, Any] = {}
    while time.monotonic() < started + _LONGEST_SECONDS:
        summary = sandbox.get("summary")
        now = time.monotonic()
        received = summary["users"]["applied"]
        if received and not seen:
            begun, first, before = now, received, used()
        if received != seen:
            seen, last_new, after = received, now, used()
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
    thousands = max(1, arrived - first) / 1_000
    return ContestResult(
        events=events,
        seconds=round(seconds, 2),
        events_per_second=round(1_000 * thousands / seconds, 1),
        requests=round(1_000 * summary["requests"]["total"] / events, 1),
        worker_cpu=round((after.workers - before.workers) / thousands, 4),
        redis_cpu=round((after.redis - before.redis) / thousands, 4),
        stand_in_cpu=round((after.stand_in - before.stand_in) / thousands, 4),
        lost=events - arrived,
        sent_twice=twice,
    )


_Profiles = dict[str, Any]
"""Attributes and number of events at the stand-in, by email address."""


def _profiles(sandbox: SandboxProcess, events: list[bytes]) -> _Profiles:
    """Return some of the profiles that the stand-in has in the end."""
    found = {}
    for event in events[:: max(1, len(events) // _COMPARED)]:
        email = orjson.loads(event)["data"]["email"]
        with suppress(httpx.HTTPStatusError):  # a lost event
            one = sandbox.get("profile", email=email)
            found[email] = {"attributes": one["attributes"], "events": one["event_count"]}
    return found


def _check_same(name: str, found: _Profiles, reference: _Profiles) -> None:
    """Refuse a contestant that has not delivered what the first one has."""
    for email in found.keys() & reference.keys():
        if found[email] != reference[email]:
            raise OperationsMustAct(
                f"{name} delivered other data: {found[email]}, not {reference[email]}"
            )


@contextmanager
def _redis(folder: Path) -> Iterator[embedded.EmbeddedRedis]:
    """Start an embedded Redis, with the settings that segrelay gives it."""
    data_dir = folder / "redis"
    try:
        yield embedded.ensure_running(data_dir)
    finally:
        embedded.stop(data_dir)


def _node_folder() -> Path:
    """Return the folder of the peers on Node, beside the Python that has the other peers."""
    return Path(_python_of_peers()).parents[1] / "bullmq"


@cache
def _install_bullmq() -> None:
    target = _node_folder()
    shutil.copytree(_BULLMQ, target, dirs_exist_ok=True)
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
    return ("-m", "celery", "-A", f"tools.bench.peers.{module}", *options, *quiet)


CONTESTANTS: Final[Sequence[Contestant]] = (
    Ourselves("segrelay", "", ()),
    Contestant("BullMQ, a job an event", "", (), processes=_PROCESSES, together=1),
    Contestant("BullMQ, a job 500 events", "", (), processes=_PROCESSES, together=500),
    Contestant(
        "bare loop, rjsonnet", "tools.bench.peers.bare", (), processes=_PROCESSES, is_ours=True
    ),
    Contestant(
        "bare loop, compiled template",
        "tools.bench.peers.bare",
        (),
        engine="compiled",
        processes=_PROCESSES,
        is_ours=True,
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
        only_named=True,
    ),
    Contestant(
        "Celery, a task an event, C++ jsonnet",
        "tools.bench.peers.celery_each",
        _celery("celery_each"),
        share=0.003,
        engine="jsonnet",
        only_named=True,
    ),
    Contestant(
        "taskiq, asyncio, rjsonnet",
        "tools.bench.peers.taskiq_each",
        (
            "-m",
            "taskiq",
            "worker",
            "tools.bench.peers.taskiq_each:broker",
            f"--workers={_PROCESSES}",
        ),
        share=0.05,
        only_named=True,
    ),
)
"""All contestants, with the `share` of the events that lets each take about the same time."""
OURS: Final = CONTESTANTS[0].name
_Results = dict[str, dict[int, ContestResult]]
"""The results of each contestant, by its name and the number of the run."""


def main() -> int:
    """Measure the contestants, and print the results as one JSON document and a table."""
    arguments = _arguments()
    chosen = _chosen(arguments.only)
    contest = Contest(_events(arguments), arguments.limit, arguments.kills)
    results: _Results = {each.name: {} for each in chosen}
    reference: _Profiles = {}
    for number in range(arguments.runs):
        for contestant in chosen if number % 2 == 0 else reversed(chosen):
            sys.stderr.write(f"run {number + 1} of {arguments.runs}: {contestant.name}: ")
            sys.stderr.flush()
            try:
                with _turn(arguments.lock):
                    result, profiles = _run(contestant, contest, arguments.least)
                _check_same(contestant.name, profiles, reference)
            except SegrelayError as error:
                sys.stderr.write(f"left out: {error.message}\n")
            else:
                sys.stderr.write(f"{result.events_per_second:,.0f} events/s\n")
                results[contestant.name][number] = result
                reference |= profiles
    results = {name: found for name, found in results.items() if found}
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "results": {
            name: {"summary": _summed_up(found.values()), "runs": list(map(asdict, found.values()))}
            for name, found in results.items()
        },
        "segrelay_is": {name: advantage(results, name) for name in results},
    }
    print_json(report)
    _print_table(results)
    return 0


@contextmanager
def _turn(lock: Path | None) -> Iterator[None]:
    """Hold the lock of a machine on which others measure too, if there is one."""
    if lock is None:
        yield
        return
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(contestant: Contestant, contest: Contest, least: int) -> tuple[ContestResult, _Profiles]:
    count = max(least, round(len(contest.events) * contestant.share))
    with tempfile.TemporaryDirectory(prefix="segrelay-peers-") as folder:
        return contestant.run(Path(folder), replace(contest, events=contest.events[:count]))


def _events(arguments: argparse.Namespace) -> list[bytes]:
    """Invent one entrance for each person, with the list `_segments` that the template sends.

    No event supersedes another, so that contestants that ignore the order deliver the same.
    """
    count = arguments.events
    rng = random.Random(arguments.seed)  # noqa: S311 - invented people
    entrances = [
        replace(each, email=f"person{number}@example.com", is_exit=False)
        for number, each in enumerate(happenings(rng, events=count, people=count, ties=0.0))
    ]
    return [_with_list(one) for one in payloads(entrances, profile_bytes=arguments.profile_bytes)]


def _with_list(payload: bytes) -> bytes:
    read = orjson.loads(payload)
    read["data"]["_segments"] = [read["data"]["segment_events"][0]["slug"]]
    return orjson.dumps(read)


def _chosen(only: Sequence[str]) -> list[Contestant]:
    chosen = [each for each in CONTESTANTS if (each.name in only if only else not each.only_named)]
    if any(each.together for each in chosen) and not shutil.which("node"):
        sys.stderr.write("BullMQ is left out: Node is not installed.\n")
        chosen = [each for each in chosen if not each.together]
    return chosen


def _summed_up(found: Iterable[ContestResult]) -> dict[str, Any]:
    rows = [asdict(one) for one in found]
    return {name: _spread([row[name] for row in rows]) for name in rows[0]}


def _spread(values: list[float]) -> dict[str, float]:
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


def advantage(results: _Results, name: str) -> dict[str, float] | None:
    """Return how many times as fast segrelay is: the least, median and most of the runs' ratios."""
    ours = results.get(OURS, {})
    ratios = [
        ours[number].events_per_second / their.events_per_second
        for number, their in results[name].items()
        if number in ours and their.events_per_second
    ]
    if not ratios:
        return None
    return {each: round(value, 3) for each, value in _spread(ratios).items()}


def _print_table(results: _Results) -> None:
    head = ("", "events/s", "least to most", "segrelay is", "requests", "workers", "Redis")
    rows: list[tuple[str, ...]] = [(*head, "stand-in", "lost", "twice")]
    for name, found in results.items():
        told, ratio = _summed_up(found.values()), advantage(results, name)
        middle = {field: each["median"] for field, each in told.items()}
        speed = told["events_per_second"]
        rows.append((
            name,
            f"{middle['events_per_second']:,.0f}",
            f"{speed['least']:,.0f} to {speed['most']:,.0f}",
            f"{ratio['median']:.2f} x" if ratio and name != OURS else "",
            f"{middle['requests']:,.1f}",
            *(f"{middle[use]:.3f}" for use in ("worker_cpu", "redis_cpu", "stand_in_cpu")),
            f"{told['lost']['most']:.0f}",
            f"{told['sent_twice']['most']:.0f}",
        ))  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stderr.write(line.rstrip() + "\n")
    sys.stderr.write("Requests and processor seconds are for 1,000 events; all but the rates'\n")
    sys.stderr.write("spread are medians, lost and twice the most of a run.\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--least", type=int, default=300, help="events for the slowest")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile-bytes", type=int, default=1_000)
    parser.add_argument("--limit", type=int, default=1_000_000, help="requests a minute")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="contestants by their names")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--lock", type=Path, help="file that is locked while a contestant is measured"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
