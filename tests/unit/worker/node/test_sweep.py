"""The sweep's rounds over time: Redis that goes away, and a node that is broken."""

import json
import subprocess
import sys
from dataclasses import dataclass, field

from structlog.testing import capture_logs

from segrelay.worker.contract.celery import BackgroundJob
from segrelay.worker.core.rounds import Sight, WakeUp
from segrelay.worker.errors import RedisUnavailable
from segrelay.worker.node.shared import Board
from segrelay.worker.node.sweep import Sweep
from tests.waiting import allowed


@dataclass
class FakeSurvey:
    """Shows one due partition that is woken once it was looked at."""

    ours: bool = True
    away: bool = False
    looks: int = 0

    def may_sweep(self):
        if self.away:
            raise RedisUnavailable("Redis is not there.")
        return self.ours

    def look(self):
        self.looks += 1
        return [Sight(WakeUp("live", "one", 1), due=True, waking=self.looks > 1, held=False)]


@dataclass
class World:
    """A sweep with a clock of its own."""

    survey: FakeSurvey = field(default_factory=FakeSurvey)
    now: float = 1_000.0
    idle: bool = True
    woken: list[WakeUp | BackgroundJob] = field(default_factory=list)
    board: Board = field(default_factory=Board)
    left: int = 0
    chores: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.sweep = Sweep(
            announce=list,
            leave=self.leave,
            may_sweep=self.survey.may_sweep,
            look=self.survey.look,
            queued=lambda: 0,
            wake=self.woken.extend,
            has_idle_process=lambda: self.idle,
            board=self.board,
            chores=[lambda: self.chores.append(self.now)],
            clock=lambda: self.now,
        )

    def leave(self):
        if self.survey.away:
            raise RedisUnavailable("Redis is not there.")
        self.left += 1

    def pass_seconds(self, seconds):
        """Tick once a second; returns whether the node was found broken."""
        for _ in range(seconds):
            if self.sweep.tick():
                return True
            self.now += 1
        return False


def test_a_redis_that_goes_away_is_told_once_and_sweeping_goes_on_when_it_is_back():
    world = World()

    with capture_logs() as lines:
        world.survey.away = True
        world.pass_seconds(20)
        world.survey.away = False
        world.pass_seconds(5)

    assert [line["event"] for line in lines] == ["sweep.waits", "sweep.resumed"]
    assert world.woken


def test_ringing_in_vain_with_an_idle_process_for_30_seconds_is_broken():
    world = World()

    assert not world.pass_seconds(31)
    assert world.pass_seconds(2)


def test_a_node_whose_processes_are_all_busy_is_not_broken():
    world = World()

    for _ in range(6):
        world.idle = False
        assert not world.pass_seconds(1)
        world.idle = True
        assert not world.pass_seconds(20)


def test_a_node_that_drains_is_not_broken():
    world = World()
    world.now = 0.0

    for _ in range(60):
        world.board.begin()
        world.now = world.board.began_at_seconds
        assert not world.pass_seconds(1)
        world.sweep.rounds.silent_since_seconds = world.now - 60


def test_a_node_that_ends_says_so_unless_redis_is_away():
    world, cut_off = World(), World(FakeSurvey(away=True))

    world.sweep.end()
    cut_off.sweep.end()

    assert (world.left, cut_off.left) == (1, 0)


def test_who_does_the_round_does_its_chores():
    world = World()
    world.pass_seconds(3)
    world.survey.ours = False
    world.pass_seconds(3)

    assert len(world.chores) == 3


HANGING = """
import json, os, sys, time
from types import SimpleNamespace
from segrelay.worker.node.sweep import SweepStep

def play(what, turns, seconds, most, stops):
    def hang():
        time.sleep(seconds)

    def sweep():
        if what == "round":
            hang()
        return False

    def call_repeatedly(_, tick):
        ticks.append(tick)
        return SimpleNamespace(cancel=bool)

    ticks = []
    consumer = SimpleNamespace(
        app=SimpleNamespace(segrelay=SimpleNamespace(sweep=lambda _: SimpleNamespace(tick=sweep))),
        pool=None,
        timer=SimpleNamespace(call_repeatedly=call_repeatedly),
    )
    step = type("Quick", (SweepStep,), {"hung_seconds": most})(consumer)
    step.start(consumer)
    for _ in range(turns):
        ticks[0]()
        time.sleep(most / 20) if what == "round" else hang()
    if stops:
        step.stop(consumer)
        hang()

pids = []
for name, *case in json.load(sys.stdin):
    pids.append(os.fork())
    if not pids[-1]:
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), 2)
        play(*case)
        os._exit(0)  # its end may take longer on a busy machine
for pid in pids:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
HANGS = {"prefork": ("prefork", 1, 50, False), "a round beside it": ("round", 500, 50, False)}
GOES_ON = {
    "it sweeps in time": ("prefork", 12, 0.1, False),
    "it waits for its broker": ("prefork", 0, 1.2, True),
    "a round lasts longer than it should": ("round", 24, 0.2, False),
}
"""What hangs, how often, for how many times what it may at most, and whether it is told to stop."""


def test_what_hangs_is_ended_with_where_it_stood_in_the_log_and_the_rest_goes_on(tmp_path):
    most = allowed(0.5)  # longer on a busy machine
    cases = [
        [str(tmp_path / name), what, turns, times * most, most, stops]
        for name, (what, turns, times, stops) in (HANGS | GOES_ON).items()
    ]

    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=allowed(120),
        check=True,
    )

    assert done.stdout.split() == [*["1"] * len(HANGS), *["0"] * len(GOES_ON)]
    for name in HANGS:
        assert "in hang" in (tmp_path / name).read_text()


BESIDE = """
import os, sys, threading, time
from types import SimpleNamespace
from celery.concurrency.prefork import TaskPool as Prefork
from celery.exceptions import WorkerShutdown
from segrelay.worker.node.sweep import SweepStep

rounds, may_end, ended = [], threading.Event(), threading.Event()

def sweep():
    rounds.append(threading.current_thread())
    may_end.wait(30)
    ended.set()
    return True

ticks = []
consumer = SimpleNamespace(
    app=SimpleNamespace(segrelay=SimpleNamespace(sweep=lambda _: SimpleNamespace(tick=sweep))),
    pool=object.__new__(Prefork),
    timer=SimpleNamespace(call_repeatedly=lambda _, tick: ticks.append(tick)),
)
step = SweepStep(consumer)
step.start(consumer)
ticks[0]()
ticks[0]()
while not rounds:
    time.sleep(0.01)
print(len(rounds), ended.is_set(), sys.getswitchinterval(), flush=True)
threading.Timer(0.3, may_end.set).start()
if os.fork() == 0:
    os._exit(0 if ended.is_set() else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
rounds[0].join()
try:
    ticks[0]()
except WorkerShutdown:
    print("shut down", flush=True)
os._exit(0)
"""


def test_the_event_loop_goes_on_while_a_round_is_under_way_and_obeys_it_afterwards():
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BESIDE],
        capture_output=True,
        text=True,
        timeout=allowed(60),
        check=False,
    )

    one_round, forked_behind_it, *_, obeyed = done.stdout.splitlines()
    assert one_round == "1 False 0.0005", "nor does it wait for long while a round computes"
    assert forked_behind_it == "0"
    assert obeyed == "shut down"
