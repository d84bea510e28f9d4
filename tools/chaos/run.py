"""One run, from its plan to its verdict: feed, break, feed, break, work off, judge."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from segrelay.ops import embedded
from segrelay.ops.embedded import free_port
from segrelay.sandbox.people import (
    AUDIENCES,
    Happening,
    happenings,
    payloads,
    reevaluations,
    snapshot_payloads,
    snapshots,
)
from segrelay.worker.contract.settings.values import EMBEDDED
from tests.rig import DESTINATION, ProcessStarter, Rig
from tests.topologies import LocalCluster, Sentinels
from tools.chaos.feeding import RECEIVER, Bringer, Feeder, Readers
from tools.chaos.injector import ClusterMasters, FaultInjector, Masters, SentinelMasters
from tools.chaos.plan import (
    DEADLINE_SECONDS,
    DUPLICATES,
    LATE_SECONDS,
    LEASE_SECONDS,
    MANY_AUDIENCES,
    NODE_MS,
    RATE_PER_MINUTE,
    REEVALUATED,
    WORKERS,
    Plan,
)
from tools.chaos.syncing import CONFIGURATION, Regulars, RewrittenFile
from tools.chaos.verdict import ChaosVerdict, Participants, judge
from tools.chaos.watching import Course, Watch

AHEAD: Final = 2
"""Portions that are fed before the first disruption, so that every disruption meets work."""
_BUSY_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = (0.0, 0.8)
_LOOK_SECONDS: Final = 0.1
_TOLD_SECONDS: Final = 5.0
_DELIVERY: Final = (
    f'lease = "{LEASE_SECONDS:g}s"\nlate = "{LATE_SECONDS:g}s"\n'
    f'request_deadline = "{DEADLINE_SECONDS:g}s"'
)
_EXIT: Final = "insider/exit.jsonnet"
_OWN: Final = Path(__file__).parent

Tell = Callable[[str], None]


@dataclass(slots=True)
class ChaosRun:
    """One run in an empty folder.

    Args:
        tell: A callback that takes a line of progress now and then.
        launch: A function that starts the processes, as `subprocess.Popen` does.
    """

    plan: Plan
    folder: Path
    tell: Tell
    launch: ProcessStarter = subprocess.Popen
    rng: random.Random = field(init=False)
    happened: list[Happening] = field(init=False)
    _units: list[list[Happening]] = field(init=False)
    _stop_at: float = field(init=False)
    _port: int = field(init=False)

    def __post_init__(self) -> None:
        """Invent the events."""
        self.rng = random.Random(self.plan.seed)  # noqa: S311 - repeatable on purpose
        self._units = self._invented()
        self.happened = [event for unit in self._units for event in unit]
        self._stop_at = time.monotonic() + 60 * self.plan.minutes
        self._port = free_port()

    def _invented(self) -> list[list[Happening]]:
        """Return all events in lists, each with the events of one person at about one time."""
        plan, audiences = self.plan, MANY_AUDIENCES
        people = max(1, round(REEVALUATED * plan.people))
        most = min(2 * people, plan.events // (2 * len(audiences)))
        rounds = reevaluations(self.rng, rounds=most, people=people, audiences=audiences)
        left = plan.events - len(rounds) * len(audiences)
        return [
            *rounds,
            *([each] for each in happenings(self.rng, events=left, people=plan.people)),
        ]

    def verdict(self) -> ChaosVerdict:
        """Carry out the whole run, and return the verdict on it."""
        begun = time.monotonic()
        with (
            self._rig() as (rig, masters),
            self._participants(rig, masters) as participants,
        ):
            self._fight(participants)
            self._work_off(participants)
            participants.course.sample()
            for number in range(WORKERS):
                participants.injector.end(number)
            participants.watch.stop()
            seconds = time.monotonic() - begun
            return judge(rig, self.plan, self.happened, participants, seconds)

    @contextmanager
    def _rig(self) -> Iterator[tuple[Rig, Masters | None]]:
        """Yield a rig with the kind of Redis that the plan names, and the masters to break."""
        with ExitStack() as stack:
            match self.plan.redis:
                case "sentinel":
                    sentinels = stack.enter_context(Sentinels(self.folder / "servers"))
                    rig = stack.enter_context(self._rig_with(sentinels.url, "replicas = 2"))
                    yield rig, SentinelMasters(sentinels)
                case "cluster":
                    cluster = stack.enter_context(
                        LocalCluster(self.folder / "servers", node_ms=NODE_MS)
                    )
                    broker = self.folder / "broker"
                    lines = f'broker_url = "{embedded.ensure_running(broker).url}"\nreplicas = 1'
                    stack.callback(embedded.stop, broker)
                    rig = stack.enter_context(self._rig_with(cluster.url, lines))
                    yield rig, ClusterMasters(cluster, rig, self.rng)
                case _:
                    yield stack.enter_context(self._rig_with(EMBEDDED)), None

    def _rig_with(self, redis_url: str, redis_lines: str = "") -> Rig:
        return Rig(
            self.folder,
            redis_url=redis_url,
            redis_lines=f"partitions = {self.plan.partitions}\n{redis_lines}",
            rate=f"{RATE_PER_MINUTE}/min",
            delivery_lines=_DELIVERY,
            sandbox_settings=self.plan.sandbox_settings(),
            templates={_EXIT: (_OWN / "exit.jsonnet").read_text("utf-8")},
            more=RECEIVER.format(port=self._port) + CONFIGURATION,
            audiences=(*AUDIENCES, *MANY_AUDIENCES),
            launch=self.launch,
        )

    @contextmanager
    def _participants(self, rig: Rig, masters: Masters | None) -> Iterator[Participants]:
        readers = Readers()
        url = f"http://127.0.0.1:{self._port}/v1/lytics"
        bringer = Bringer(rig, readers, self._stop_at, url)
        rng = random.Random(self.plan.seed + 1)  # noqa: S311 - repeatable on purpose
        feeder = Feeder(rig, rng, self._stop_at, bringer)
        injector = FaultInjector(rig, self.plan, self.rng, readers, masters)
        watch = Watch(rig)
        rng = random.Random(self.plan.seed + 2)  # noqa: S311 - of its own: the feeder has threads
        regulars = Regulars(rig, rng, self.plan.regulars)
        regulars.begin()
        injector.start_workers()
        injector.start_receiver()
        watch.start()
        feeder.start()
        rng = random.Random(self.plan.seed + 3)  # noqa: S311 - of its own, like the others
        rewritten = RewrittenFile(rig, rng, self.plan.exported, self.plan.rewrites)
        rewritten.begin()
        try:
            course = Course(rig, injector, watch, self.plan.disruption_count())
            yield Participants(feeder, injector, watch, regulars, rewritten, course)
        finally:
            rewritten.end()
            watch.stop()
            injector.end_receiver()

    def _fight(self, participants: Participants) -> None:
        feeder, injector, watch, regulars, rewritten, course = participants
        disruptions = self.plan.disruptions(self.rng)
        count = len(disruptions) + AHEAD
        portions, states = self._portions(count), self._states(count)
        for _ in range(AHEAD):
            feeder.give_states(next(states))
            feeder.give(next(portions))
        for number, disruption in enumerate(disruptions, 1):
            feeder.give_states(next(states))
            feeder.give(next(portions))
            regulars.move()
            injector.victim()
            self._await_work(watch)
            if time.monotonic() > self._stop_at:
                injector.problems.append(f"the time was over after {number - 1} disruptions")
                break
            injector.inject(disruption)
            course.after(number)
            self.tell(f"{number}/{len(disruptions)} {disruption.value}: {_line(watch)}")
        for portion in portions:
            feeder.give(portion)
        feeder.finish(injector.revive)
        rewritten.end()

    def _portions(self, count: int) -> Iterator[list[bytes]]:
        """Yield the payloads of each portion, in a random order, some of them twice."""
        units = list(self._units)
        units += self.rng.sample(units, round(len(units) * DUPLICATES))
        self.rng.shuffle(units)
        sent = [event for unit in units for event in unit]
        for number in range(count):
            part = sent[number * len(sent) // count : (number + 1) * len(sent) // count]
            yield list(payloads(part))

    def _states(self, count: int) -> Iterator[list[bytes]]:
        """Yield payloads that tell people's audiences at random times; older events may follow."""
        seen = snapshots(self.rng, self.happened, count=round(self.plan.events * self.plan.states))
        told = list(snapshot_payloads(seen))
        for number in range(count):
            yield told[number * len(told) // count : (number + 1) * len(told) // count]

    def _await_work(self, watch: Watch) -> None:
        """Wait until deliveries are being made and others wait; then for a random moment."""
        before = watch.settled()
        gives_up_at = time.monotonic() + _BUSY_SECONDS
        while time.monotonic() < gives_up_at:
            if watch.settled() > before and watch.status.get("waiting"):
                break
            time.sleep(_LOOK_SECONDS)
        time.sleep(self.rng.uniform(*_PAUSE_SECONDS))

    def _work_off(self, participants: Participants) -> None:
        """Wait until the syncs have found every change, and no delivery waits."""
        watch = participants.watch
        self._await(participants, participants.regulars.are_found)
        self._await(participants, participants.rewritten.is_found)
        looks = watch.looks
        self._await(participants, lambda: watch.looks >= looks + 2 and not watch.status["waiting"])

    def _await(self, participants: Participants, is_done: Callable[[], bool]) -> None:
        told_at = 0.0
        while not is_done():
            if time.monotonic() > self._stop_at:
                participants.injector.problems.append(
                    "the time was over before everything was worked off"
                )
                return
            participants.injector.revive()
            if time.monotonic() > told_at + _TOLD_SECONDS:
                told_at = time.monotonic()
                self.tell(f"working off: {_line(participants.watch)}")
            time.sleep(_LOOK_SECONDS)


def _line(watch: Watch) -> str:
    names = ("accepted", "delivered", "skipped", "dead", "waiting")
    counts = ", ".join(f"{name} {watch.status.get(name, 0)}" for name in names)
    gate = watch.status.get("destinations", {}).get(DESTINATION)
    return f"{counts}; {gate['state']} {gate['reason']}".rstrip() if gate else counts
