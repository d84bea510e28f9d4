"""Workers, the real gate and a host that counts a sliding minute, on a clock of their own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segrelay.worker.adapters.redis.gate import RedisGate
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.core.gate import MICROSECONDS, POLICY, WHOLE, Closed, SendTime
from segrelay.worker.core.verdicts import Accepted, Failed, SlowDown, Verdict
from tests.conformance.gates import gate_of
from tests.nightly import amount
from tests.simulation.virtual_redis import AtOnce, VirtualClient, at_once

MINUTE = 60 * MICROSECONDS
START_US = 1_764_000_000_000_000
RATE, SENDERS = amount((200, 8), nightly=(6_000, 16))
HOSTS = itertools.count()
WORKS, SLOW, FAILED = Accepted(), SlowDown(), Failed("503")


@dataclass
class Host:
    """Takes so many requests in any minute, and says 429 to the others."""

    limit: int
    is_up: bool = True
    taken: deque[int] = field(default_factory=deque)
    answers: list[tuple[int, Verdict]] = field(default_factory=list)

    def answer(self, now: int) -> Verdict:
        heard = FAILED if not self.is_up else WORKS if self.takes(now) else SLOW
        self.answers.append((now, heard))
        return heard

    def takes(self, now: int) -> bool:
        while self.taken and self.taken[0] <= now - MINUTE:
            self.taken.popleft()
        if len(self.taken) >= self.limit:
            return False
        self.taken.append(now)
        return True

    def count(self, what: Verdict, since_seconds: float, until_seconds: float = 1e9) -> int:
        return sum(
            since_seconds <= at / MICROSECONDS < until_seconds and heard is what
            for at, heard in self.answers
        )


@dataclass
class BucketHost(Host):
    """Refills evenly, and takes a second's worth at once."""

    tokens: float = 0.0
    filled_at: int = 0

    def takes(self, now: int) -> bool:
        a_second = self.limit / 60
        self.tokens = min(a_second, self.tokens + a_second * (now - self.filled_at) / MICROSECONDS)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Simulation:
    """So many senders, each with one request after the other.

    Args:
        rate: As configured.
        latency_seconds: Of one request; up to as much again by chance.
    """

    client: Redis
    host: Host
    rate: float
    senders: int = SENDERS
    latency_seconds: float = 0.02
    seed: int = 1
    now: int = 0

    def __post_init__(self) -> None:
        self.gate = own_gate(self.client, self.rate, lambda: START_US + self.now)

    def run(self, until_seconds: float, *changes: tuple[float, str, int]) -> Host:
        """Let all send until then; a change is a time (seconds), a field of the host, its value."""
        chance = random.Random(self.seed)
        queue = [(0, number, "ask", None) for number in range(self.senders)]
        queue += [(round(at * MICROSECONDS), -1, "change", to) for at, *to in changes]
        heapq.heapify(queue)
        order = self.senders
        while queue:
            now, _, what, item = heapq.heappop(queue)
            if now > until_seconds * MICROSECONDS:
                break
            order += 1
            self.now = now
            if what == "change":
                setattr(self.host, *item)
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
                self._report(send_time, heard)
                heapq.heappush(queue, (now, order, "ask", None))
        return self.host

    def _latency(self, chance: random.Random) -> int:
        return round(self.latency_seconds * (1 + chance.random()) / 2 * MICROSECONDS)

    def _ask(self, now: int):
        booking = self.gate.book(kind="backfill", triggers=("vip",), horizon_seconds=1.0)
        found = at_once(booking)
        if isinstance(found, Closed):
            return max(now + 1000, round(found.until_ms * 1000) - START_US), "ask", None
        return max(now, round(found.at_ms * 1000) - START_US), "send", found

    def _report(self, send_time: SendTime, heard: Verdict) -> None:
        at_once(self.gate.report(send_time, heard, delivered={"vip": int(heard is WORKS)}))


def own_gate(client: Redis, rate: float, now_us) -> RedisGate:
    """Return the gate of a host of its own."""
    return gate_of(AtOnce(VirtualClient.beside(client, now_us)), f"own-{next(HOSTS)}", rate)


@pytest.mark.parametrize(
    ("rate", "senders"), [pytest.param(25_000, 64, marks=pytest.mark.nightly), (600, 8), (60, 4)]
)
def test_the_limit_is_used_and_never_broken(redis, rate, senders):
    host = Simulation(redis, Host(rate), rate, senders).run(121)

    assert host.count(SLOW, 0) == 0
    assert host.count(WORKS, 61, 121) >= 0.95 * rate


@pytest.mark.parametrize("kind", [Host, BucketHost])
@pytest.mark.parametrize(
    ("rate", "senders"),
    [pytest.param(25_000, 64, marks=pytest.mark.nightly), (600, amount(4, nightly=8))],
)
def test_a_halved_limit_is_met_by_few_requests(redis, kind, rate, senders):
    host = Simulation(redis, kind(rate), rate, senders).run(310, (70, "limit", rate // 2))

    for until_seconds in (130, 200, 310):
        slow = host.count(SLOW, 80, until_seconds)
        works = host.count(WORKS, 80, until_seconds)
        assert slow <= 0.01 * (slow + works)
    assert host.count(WORKS, 110, 310) >= 0.8 * (rate / 2) * (200 / 60)


def test_the_rate_recovers_when_the_limit_is_raised_again(redis):
    changes = (70, "limit", RATE // 2), (200, "limit", RATE)
    host = Simulation(redis, Host(RATE), RATE).run(460, *changes)

    assert host.count(WORKS, 400, 460) >= 0.95 * RATE
    assert host.count(SLOW, 200) <= 20


def test_an_outage_costs_few_requests_and_ends_by_itself(redis):
    changes = (10, "is_up", False), (110, "is_up", True)
    host = Simulation(redis, Host(RATE), RATE).run(200, *changes)

    before_it_opens, probes = 4, 7
    assert host.count(FAILED, 0) <= SENDERS + before_it_opens + probes
    assert host.count(WORKS, 140, 200) >= 0.95 * RATE


class Walk:
    """Bookings at any times, used as late as is allowed; the factor goes up and down meanwhile."""

    def __init__(self, redis: Redis, rate: float) -> None:
        self.now = 0
        self.gate = own_gate(redis, rate, lambda: START_US + self.now)
        self.arrivals: list[int] = []
        self._redis = redis

    def lower(self, factor: int) -> None:
        kept = {"factor": factor, "failed_at": START_US + self.now}
        self._redis.hset(keys.gate(self.gate.gate_id), mapping=kept)

    def rush(self, wanted: int, late: float) -> None:
        for _ in range(wanted):
            found = at_once(self.gate.book(kind="live", triggers=("vip",), horizon_seconds=60.0))
            if isinstance(found, Closed):
                return
            self.arrivals.append(round(found.at_ms * 1000 + late * (POLICY.late - 1)))

    def most_in_a_minute(self) -> int:
        self.arrivals.sort()
        most, first = 0, 0
        for last, at in enumerate(self.arrivals):
            while self.arrivals[first] <= at - MINUTE:
                first += 1
            most = max(most, last - first + 1)
        return most


@settings(max_examples=amount(25, nightly=2_000))
@given(
    rate=st.sampled_from([1.0, 2.0, 7.5, 20.0, 99.0, 100.0, 130.0, 600.0, 3000.0]),
    walk=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0, 10.0, 29.0, 61.0]),
            st.sampled_from([1, 5, 150]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([WHOLE, WHOLE, 500_000, 350_000, 20_000]),
        ),
        max_size=25,
    ),
)
@example(rate=130.0, walk=[(0.0, 400, 1.0, WHOLE), (61.0, 400, 0.0, WHOLE)])
@example(
    rate=amount(1_500.0, nightly=25_000.0),
    walk=[
        (0.0, amount(1_800, nightly=30_000), 1.0, WHOLE),
        (0.9, amount(60, nightly=1_000), 0.0, WHOLE),
        (60.0, amount(60, nightly=1_000), 0.0, 200_000),
        (0.05, amount(60, nightly=1_000), 0.0, 200_000),
    ],
)
def test_no_minute_holds_more_than_the_limit_whatever_the_pattern(redis, rate, walk):
    walker = Walk(redis, rate)

    for seconds, wanted, late, factor in walk:
        walker.now += round(seconds * MICROSECONDS)
        walker.lower(factor)
        walker.rush(wanted, late)

    assert walker.most_in_a_minute() <= rate


@settings(max_examples=amount(2, nightly=500))
@given(seed=st.integers(0, 2**32), latency=st.sampled_from([0.001, 0.02, 0.4, 0.9]))
def test_any_latency_below_a_second_keeps_the_limit(redis, seed, latency):
    rate = amount(120, nightly=300)
    host = Simulation(redis, Host(rate), rate, 12, latency_seconds=latency, seed=seed).run(150)

    assert host.count(SLOW, 0) == 0
