"""Whatever is asked of them, the gate in memory and the one in Redis answer and remember alike."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segrelay.worker.core.gate import MICROSECONDS, Closed, SendTime
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    Unreadable,
)
from tests.nightly import amount

WORKERS = [(600.0, "a"), (600.0, "b"), (25_000.0, "a"), (50.0, "a"), (1000 / 60, "c"), (0.5, "a")]
VERDICTS = [
    Accepted(),
    Accepted(),
    BodyRefused("400"),
    Failed("503"),
    Failed("timeout"),
    SlowDown(),
    SlowDown(3.25),
    AccessRefused("Access Denied"),
    Unreadable("HTML"),
]
worker = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5])
trigger = st.sampled_from(["vip", "vip", "other"])
some = st.sampled_from([("vip",), ("vip",), ("other",), ("vip", "other"), ("new", "other", "vip")])
step = st.one_of(
    st.tuples(
        st.just("pass"), st.sampled_from([0.0013, 0.2, 1.0, 2.5, 31.0, 130.0, -5.0, -2000.0])
    ),
    st.tuples(
        st.just("book"),
        worker,
        some,
        st.sampled_from(["live", "backfill"]),
        st.sampled_from([0.0, 1.0, 60.0, 2000.0]),
        st.booleans(),
    ),
    st.tuples(
        st.just("report"), st.integers(0, 4), st.sampled_from(VERDICTS), st.integers(0, 1000)
    ),
    st.tuples(st.just("cancel"), st.integers(0, 4)),
    st.tuples(st.just("look"), worker),
    st.tuples(st.just("status"), st.sampled_from([0.0, 30.0, 600.0])),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("resume_trigger"), trigger),
)
a_round = st.tuples(st.just("round"), worker, some, st.sampled_from(VERDICTS))
rush = st.tuples(st.just("rush"), worker, st.sampled_from(["live", "backfill"]))
histories = st.lists(st.one_of(step, a_round, a_round, rush), min_size=20, max_size=60)


class Pair:
    """Both worlds, and the send times that both gave."""

    def __init__(self, worlds: tuple[Any, Any]) -> None:
        self.worlds = worlds
        self.now_us = worlds[0].now_us
        self.send_times: list[tuple[int, SendTime]] = []

    def do(self, name: str, *args: Any) -> None:
        getattr(self, f"do_{name}")(*args)
        fake, real = (world.record() for world in self.worlds)
        assert fake == real

    def both(self, number: int, method: str, *args: Any, **more: Any) -> Any:
        answers = [
            world.run(getattr(world.gate(*WORKERS[number]), method)(*args, **more))
            for world in self.worlds
        ]
        assert answers[0] == answers[1]
        return answers[0]

    def do_pass(self, seconds: float) -> None:
        self.now_us += round(seconds * MICROSECONDS)
        for world in self.worlds:
            world.set_clock(self.now_us)

    def do_book(
        self, number: int, triggers: tuple[str, ...], kind: str, horizon_seconds: float, probe: bool
    ) -> None:
        answer = self.both(
            number,
            "book",
            kind=kind,
            triggers=triggers,
            horizon_seconds=horizon_seconds,
            probe=probe,
        )
        if isinstance(answer, SendTime):
            self.send_times = [(number, answer), *self.send_times[:4]]

    def do_report(self, which: int, verdict: Any, delivered: int) -> None:
        if which < len(self.send_times):
            number, send_time = self.send_times[which]
            made = dict.fromkeys(send_time.successes, delivered)
            self.both(number, "report", send_time, verdict, delivered=made, batch="b")

    def do_round(self, number: int, triggers: tuple[str, ...], verdict: Any) -> None:
        self.do_book(number, triggers, "live", 60.0, False)
        self.do_report(0, verdict, 1)
        self.do_pass(1.1)

    def do_rush(self, number: int, kind: str) -> None:
        for _ in range(12):
            self.do_book(number, ("vip",), kind, 1.0, False)

    def do_cancel(self, which: int) -> None:
        if which < len(self.send_times):
            number, send_time = self.send_times[which]
            self.both(number, "cancel", send_time)

    def do_look(self, number: int) -> None:
        self.both(number, "look", ["vip", "other", "new"])
        self.both(number, "answers", ["vip", "other", "new"])

    def do_status(self, configured_per_minute: float) -> None:
        fake, real = (world.status(configured_per_minute) for world in self.worlds)
        assert fake == real

    def do_pause(self) -> None:
        self.both(0, "pause", "a person's reason", "ops")

    def do_resume(self) -> None:
        self.both(0, "resume")

    def do_resume_trigger(self, trigger: str) -> None:
        for world in self.worlds:
            world.resume_trigger(trigger)


@settings(
    max_examples=amount(20, nightly=1_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=histories)
def test_any_history_is_answered_and_remembered_alike(two_worlds, steps):
    pair = Pair(two_worlds())

    for name, *args in steps:
        pair.do(name, *args)


def test_a_long_outage_and_a_slow_down_are_answered_alike(two_worlds):
    pair = Pair(two_worlds())

    for verdict in [*[Failed("503")] * 12, *[SlowDown()] * 6, *[Accepted()] * 60]:
        pair.do("round", 0, ("vip",), verdict)
        pair.do("round", 0, ("other",), verdict)
        pair.do("rush", 0, "backfill")
        pair.do("pass", 5.0 if isinstance(verdict, Accepted) else 0.0)
        booked = pair.both(0, "book", kind="live", triggers=["vip"], horizon_seconds=1.0)
        if isinstance(booked, Closed) and booked.until_ms:
            pair.do("pass", max(0.0, booked.until_ms / 1000 - pair.now_us / 1_000_000))

    assert pair.both(0, "report", pair.send_times[0][1], Accepted(), delivered={}).state == "ok"
