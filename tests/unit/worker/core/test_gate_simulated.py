"""Workers, a gate and a host that counts a sliding minute, on a clock of their own."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from worker.core.gate import MICROSECONDS, POLICY, Closed
from worker.core.gate_rules import UNSENT, Booking, GateRecord, Heard, Report, book, hear

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

    def run(self, until_seconds: float, changes=()) -> Host:
        chance = random.Random(self.seed)
        queue = [(0, number, "ask", None) for number in range(self.senders)]
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
                slot, heard = item
                self._report(slot, heard, now)
                heapq.heappush(queue, (now, order, "ask", None))
        return self.host

    def _latency(self, chance: random.Random) -> int:
        return round(self.latency_seconds * (1 + chance.random()) / 2 * MICROSECONDS)

    def _ask(self, now: int):
        wanted = Booking(self.rate, "a", "backfill", "vip", MICROSECONDS)
        slot = book(self.gate, wanted, now, POLICY)
        if isinstance(slot, Closed):
            return max(now + 1000, round(slot.until_ms * 1000)), "ask", None
        return max(now, round(slot.at_ms * 1000)), "send", slot

    def _report(self, slot, heard: Heard, now: int) -> None:
        report = Report(heard, slot.incident, slot.probe, "vip", 1, "", "a")
        hear(self.gate, report, now, POLICY)


def halve(host: Host) -> None:
    host.limit //= 2


def double(host: Host) -> None:
    host.limit *= 2
