"""Workers, a gate and a host that counts a sliding minute, on a clock of their own."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segrelay.worker.core.gate import MICROSECONDS, POLICY, UNSENT, WHOLE, Closed, Heard
from tests.fakes.gate_hearing import Report, hear
from tests.fakes.gate_record import GateRecord
from tests.fakes.gate_rules import Booking, book
from tests.nightly import amount

MINUTE = 60 * MICROSECONDS
WORKS, SLOW, FAILED = Heard("works"), Heard("slow"), Heard("failed")


@dataclass
class Host:
    """Takes so many requests in any minute, and says 429 to the others."""

    limit: int
    is_up: bool = True
    taken: deque[int] = field(default_factory=deque)
    answers: list[tuple[int, str]] = field(default_factory=list)

    def answer(self, now: int) -> Heard:
        while self.taken and self.taken[0] <= now - MINUTE:
            self.taken.popleft()
        heard = FAILED
        if self.is_up:
            heard = WORKS if len(self.taken) < self.limit else SLOW
        if heard is WORKS:
            self.taken.append(now)
        self.answers.append((now, heard.what))
        return heard

    def count(self, what: str, since_seconds: float, until_seconds: float = 1e9) -> int:
        return sum(
            since_seconds <= at / MICROSECONDS < until_seconds and kind == what
            for at, kind in self.answers
        )


@dataclass
class BucketHost(Host):
    """Refills evenly, and takes a second's worth at once."""

    tokens: float = 0.0
    filled_at: int = 0

    def answer(self, now: int) -> Heard:
        a_second = self.limit / 60
        self.tokens = min(a_second, self.tokens + a_second * (now - self.filled_at) / MICROSECONDS)
        self.filled_at = now
        heard = WORKS if self.tokens >= 1 else SLOW
        if heard is WORKS:
            self.tokens -= 1
        self.answers.append((now, heard.what))
        return heard


@dataclass
class Simulation:
    """So many senders, each with one request after the other.

    Args:
        rate: As configured.
        latency_seconds: Of one request; up to as much again by chance.
        changes: What happens when, in seconds.
    """

    host: Host
    rate: float
    senders: int = 16
    latency_seconds: float = 0.02
    seed: int = 1
    gate: GateRecord = field(default_factory=GateRecord)

    def run(self, until_seconds: float, changes=(), *, begins_seconds: float = 0.0) -> Host:
        chance = random.Random(self.seed)
        begins = round(begins_seconds * MICROSECONDS)
        queue = [(begins, number, "ask", None) for number in range(self.senders)]
        queue += [(round(at * MICROSECONDS), -1, "change", act) for at, act in changes]
        heapq.heapify(queue)
        order = self.senders
        while queue:
            now, _, what, item = heapq.heappop(queue)
            if now > until_seconds * MICROSECONDS:
                break
            order += 1
            if what == "change":
                item(self.host)
            elif what == "ask":
                at, what, item = self._ask(now)
                heapq.heappush(queue, (at, order, what, item))
            elif what == "arrive":
                heard = self.host.answer(now)
                back = now + self._latency(chance)
                heapq.heappush(queue, (back, order, "answered", (item, heard)))
            elif what == "send":
                heapq.heappush(queue, (now + self._latency(chance), order, "arrive", item))
            else:
                send_time, heard = item
                self._report(send_time, heard, now)
                heapq.heappush(queue, (now, order, "ask", None))
        return self.host

    def _latency(self, chance: random.Random) -> int:
        return round(self.latency_seconds * (1 + chance.random()) / 2 * MICROSECONDS)

    def _ask(self, now: int):
        wanted = Booking(self.rate, "a", "backfill", ("vip",), MICROSECONDS)
        send_time = book(self.gate, wanted, now, POLICY)
        if isinstance(send_time, Closed):
            return max(now + 1000, round(send_time.until_ms * 1000)), "ask", None
        return max(now, round(send_time.at_ms * 1000)), "send", send_time

    def _report(self, send_time, heard: Heard, now: int) -> None:
        report = Report(heard, send_time.incident, send_time.probe, {"vip": 1}, "", "a")
        hear(self.gate, report, now, POLICY)


def halve(host: Host) -> None:
    host.limit //= 2


def double(host: Host) -> None:
    host.limit *= 2


@pytest.mark.parametrize(("rate", "senders"), [(25_000, 64), (1_200, 8), (60, 4)])
def test_the_limit_is_used_and_never_broken(rate, senders):
    host = Simulation(Host(rate), rate, senders).run(121)

    assert host.count("slow", 0) == 0
    assert host.count("works", 61, 121) >= 0.95 * rate


@pytest.mark.parametrize("kind", [Host, BucketHost])
@pytest.mark.parametrize(
    ("rate", "senders"),
    [pytest.param(25_000, 64, marks=pytest.mark.nightly), (6_000, 16), (1_200, 8)],
)
def test_a_halved_limit_is_met_by_few_requests(kind, rate, senders):
    host = Simulation(kind(rate), rate, senders).run(310, [(70, halve)])

    for until_seconds in (130, 200, 310):
        slow = host.count("slow", 80, until_seconds)
        works = host.count("works", 80, until_seconds)
        assert slow <= 0.01 * (slow + works)
    assert host.count("works", 110, 310) >= 0.8 * (rate / 2) * (200 / 60)


def test_the_rate_recovers_when_the_limit_is_raised_again():
    changes = [(70, halve), (200, double)]
    host = Simulation(Host(6_000), 6_000).run(460, changes)

    assert host.count("works", 400, 460) >= 0.95 * 6_000
    assert host.count("slow", 200) <= 20


@pytest.mark.parametrize("senders", [16, 0])
def test_five_minutes_after_the_last_429_the_limit_is_used_again(senders):
    refusing = Simulation(Host(0), 6_000).run(400)
    last = max(at for at, what in refusing.answers if what == "slow") / MICROSECONDS
    simulation = Simulation(Host(0), 6_000)
    simulation.run(last + 1e-6)
    simulation.host.limit = 6_000

    simulation.senders = senders
    simulation.run(last + 300, begins_seconds=last + 1e-6)
    simulation.senders = 16
    host = simulation.run(last + 360, begins_seconds=last + 300)

    assert host.count("slow", last + 1e-6) == 0
    assert host.count("works", last + 300, last + 360) >= 0.9 * 6_000


def test_an_outage_costs_few_requests_and_ends_by_itself():
    def fall(host: Host) -> None:
        host.is_up = False

    def rise(host: Host) -> None:
        host.is_up = True

    host = Simulation(Host(6_000), 6_000).run(200, [(10, fall), (110, rise)])

    in_flight, before_it_opens, probes = 16, 4, 7
    assert host.count("failed", 0) <= in_flight + before_it_opens + probes
    assert host.count("works", 140, 200) >= 0.95 * 6_000


class Walk:
    """Bookings at any times, used as late as is allowed; the factor goes up and down meanwhile."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.gate = GateRecord()
        self.now = 0
        self.arrivals: list[int] = []

    def rush(self, wanted: int, late: float) -> None:
        for _ in range(wanted):
            send_time = book(
                self.gate,
                Booking(self.rate, "a", "live", ("vip",), 60 * MICROSECONDS),
                self.now,
                POLICY,
            )
            if isinstance(send_time, Closed):
                return
            self.arrivals.append(round(send_time.at_ms * 1000 + late * (POLICY.late - 1)))

    def most_in_a_minute(self) -> int:
        self.arrivals.sort()
        most, first = 0, 0
        for last, at in enumerate(self.arrivals):
            while self.arrivals[first] <= at - MINUTE:
                first += 1
            most = max(most, last - first + 1)
        return most


@settings(max_examples=amount(100, nightly=2_000))
@given(
    rate=st.sampled_from([1.0, 2.0, 7.5, 20.0, 99.0, 100.0, 130.0, 600.0, 3000.0]),
    walk=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0, 10.0, 29.0, 61.0]),
            st.sampled_from([1, 5, 400]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([WHOLE, WHOLE, 500_000, 350_000, 20_000]),
        ),
        max_size=25,
    ),
)
@example(rate=130.0, walk=[(0.0, 400, 1.0, WHOLE), (61.0, 400, 0.0, WHOLE)])
@example(
    rate=25_000.0,
    walk=[
        (0.0, 30_000, 1.0, WHOLE),
        (0.9, 1_000, 0.0, WHOLE),
        (60.0, 1_000, 0.0, 200_000),
        (0.05, 1_000, 0.0, 200_000),
    ],
)
def test_no_minute_holds_more_than_the_limit_whatever_the_pattern(rate, walk):
    walker = Walk(rate)

    for seconds, wanted, late, factor in walk:
        walker.now += round(seconds * MICROSECONDS)
        walker.gate.factor, walker.gate.failed_at = factor, walker.now
        walker.rush(wanted, late)

    assert walker.most_in_a_minute() <= rate


@settings(max_examples=amount(12, nightly=500))
@given(seed=st.integers(0, 2**32), latency=st.sampled_from([0.001, 0.02, 0.4, 0.9]))
def test_any_latency_below_a_second_keeps_the_limit(seed, latency):
    host = Simulation(Host(300), 300, senders=12, latency_seconds=latency, seed=seed).run(150)

    assert host.count("slow", 0) == 0


def test_a_probe_that_is_never_reported_does_not_block_for_long():
    gate = GateRecord(first=1)
    wanted = Booking(600, "a", "live", ("vip",), MICROSECONDS)
    book(gate, wanted, 0, POLICY)

    closed = book(gate, wanted, 1000, POLICY)
    again = book(gate, wanted, POLICY.lapse, POLICY)

    assert closed.until_ms == POLICY.lapse / 1000
    assert again.probe


def test_a_cancelled_probe_makes_room_at_once():
    gate = GateRecord(first=1)
    wanted = Booking(600, "a", "live", ("vip",), MICROSECONDS)
    send_time = book(gate, wanted, 0, POLICY)

    hear(gate, Report(UNSENT, send_time.incident, send_time.probe, {"vip": 0}, "", "a"), 0, POLICY)

    assert book(gate, wanted, 1, POLICY).probe
