"""A benchmark of the console: what a page costs with very much in Redis, and what open tabs cost.

Pages are asked for one after the other with a pause between two, as a reader does. Tabs ask as the
script of the pages does: at the interval that each page says. Beside the time of an answer, the
processor time of the console and of Redis is measured, which other work on the machine leaves as it
is.
"""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from threading import Event, Thread
from typing import Any, Final

import httpx

from segrelay.ops.dead_letters.reading import dead_letters_kept
from segrelay.ops.demo.rig import Rig, trigger_pairs
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import Happening, payloads
from segrelay.worker.contract.redis.acts import MOST_ACTS, Act, note_act
from tools.bench.rigs import (
    audiences_of,
    bench_rig,
    processor_seconds_of,
    redis_seconds,
    send,
    start_workers,
    wait_until,
)

_TRIGGERS: Final = 400
_DEAD_LETTERS: Final = 100_000
_BROKEN: Final = """\
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

local invalid = [{}, { users: 1 }, { users: [1] }, { users: [{ identifiers: 1 }] }];
local number = event.get("purchases");

if number < 4 then invalid[number]
else { users: [{ identifiers: insider.identifiers, attributes: { name: "Ann" } }] }
"""
"""A template of whose bodies a third is invalid: if all were, its trigger would pause."""
_EVENTS_FOR_A_DEATH: Final = 3.3
TABLES: Final = """
[triggers.broken]
destination = "insider"
audiences = ["broken"]
on = "enter"
template = "insider/broken.jsonnet"
url = "/api/user/v1/upsert"

[console]
listen = "127.0.0.1:{port}"
"""
_BLOCK: Final = 5_000
_MOST_SECONDS: Final = 3_600.0
_START_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.5
_PAGE_ROUNDS: Final = 30
_TABS: Final = 10
_TAB_PAGES: Final = ("/", "/", "/", "/", "/waiting", "/waiting", "/jobs", "/jobs", "/tap", "/tap")
_OPEN_SECONDS: Final = 30.0
_WINDOW_SECONDS: Final = 10.0
_WINDOWS: Final = 4
"""Pairs of windows, one without and one with tabs, in which a drain is measured."""


def browse(
    *, events: int, dead_letters: int = _DEAD_LETTERS, triggers: int = _TRIGGERS
) -> dict[str, Any]:
    """Measure the console's pages, and what ten open tabs cost.

    Args:
        events: Deliveries that wait.
        dead_letters: Dead letters of some causes.
        triggers: Number of triggers over which the deliveries are spread.
    """
    port = free_port()
    more = trigger_pairs(audiences_of(triggers)) + TABLES.format(port=port)
    with bench_rig(templates={"insider/broken.jsonnet": _BROKEN}, more=more) as rig:
        fill(rig, events, dead_letters, triggers)
        return measure(rig, port)


def fill(rig: Rig, events: int, dead_letters: int, triggers: int) -> None:
    """Bring about dead letters, acts, and deliveries that wait."""
    start_workers(rig, 1)
    deaths = _events(round(_EVENTS_FOR_A_DEATH * dead_letters), ["broken"], 10 * events)
    send(rig, chain.from_iterable(deaths))
    wait_until(
        lambda: sum(dead_letters_kept(rig.client, rig.partitions())) >= dead_letters,
        _MOST_SECONDS,
        "The events do not die.",
    )
    rig.stop_workers()
    for number in range(MOST_ACTS):
        note_act(rig.client, Act("pause", "ann", f"trigger {number % 400}", reason="a test"))
    publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
    for block in _events(events, audiences_of(triggers)):
        publisher.publish(block)


def _events(people: int, audiences: Sequence[str], first: int = 0) -> Iterator[list[bytes]]:
    """Yield blocks of payloads: each person enters one audience, or leaves it if there are many."""
    begun_us = int(datetime.now(UTC).timestamp() * 1_000_000) - people
    numbers = iter(range(people))
    while block := list(islice(numbers, _BLOCK)):
        happened = [
            Happening(
                f"person{first + n}@example.com",
                audiences[n % len(audiences)],
                is_exit=len(audiences) > 1 and bool(n // len(audiences) % 2),
                time_us=begun_us + n,
            )
            for n in block
        ]
        yield list(payloads(happened))


@dataclass(frozen=True, slots=True)
class Used:
    """The processor time (s) of Redis and of the console at one moment (s)."""

    redis: float
    console: float
    at: float = field(default_factory=time.monotonic)

    def since(self, before: Used, idle: Used | None = None) -> Used:
        """Return what was used since then, less what is used in this time while all is idle."""
        seconds = self.at - before.at
        share = seconds / idle.at if idle else 0.0
        return Used(
            self.redis - before.redis - (share * idle.redis if idle else 0.0),
            self.console - before.console - (share * idle.console if idle else 0.0),
            seconds,
        )

    def a_second(self) -> dict[str, float]:
        """Return the milliseconds that were used in a second."""
        return {
            "redis_ms": round(1_000 * self.redis / self.at, 2),
            "console_ms": round(1_000 * self.console / self.at, 2),
        }


def measure(rig: Rig, port: int) -> dict[str, Any]:
    """Start the console, and measure its pages, its tabs, and a drain beside them."""
    console = rig.start_beside("console")
    url = f"http://127.0.0.1:{port}"

    def used() -> Used:
        return Used(redis_seconds(rig.client), processor_seconds_of(console.pid))

    with httpx.Client(base_url=url, timeout=_START_SECONDS) as client:
        wait_until(lambda: _answers(client), _START_SECONDS, "The console does not start.")
        before = used()
        time.sleep(_IDLE_SECONDS)
        idle = used().since(before)
        begun = time.perf_counter()
        client.get("/").raise_for_status()
        first_ms = round(1_000 * (time.perf_counter() - begun), 1)
        before = used()
        time.sleep(2 * _IDLE_SECONDS)
        kept_fresh = used().since(before, idle).a_second()
        pages = {name: _page(client, path, used, idle) for name, path in _pages(client).items()}
    before = used()
    with open_tabs(url) as tabs:
        time.sleep(_OPEN_SECONDS)
        open_cost = used().since(before, idle).a_second() | {"answers": len(tabs.answered)}
    return {
        "waiting": rig.waiting(),
        "dead_letters": sum(dead_letters_kept(rig.client, rig.partitions())),
        "first_page_ms": first_ms,
        "standing_a_second": kept_fresh,
        "pages": pages,
        "slowest_p95_ms": max(each["p95_ms"] for each in pages.values()),
        "most_redis_ms": max(each["redis_ms"] for each in pages.values()),
        "most_console_ms": max(each["console_ms"] for each in pages.values()),
        "ten_tabs_a_second": open_cost,
        "drain": _drain(rig, console, url),
    }


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.HTTPError:
        return False


def _pages(client: httpx.Client) -> dict[str, str]:
    """Return the address of each page, of a letter, a cause and a person that there are."""
    letters, waits = client.get("/letters").text, client.get("/waiting").text
    cause = _first(r'href="(/letters\?cause=[^"&]+)', letters)
    return {
        "now": "/",
        "now, sorted, page 8": "/?sort=-waiting&page=8",
        "dead letters": "/letters",
        "dead letters of a cause": cause,
        "dead letters by text": "/letters?text=not+there",
        "dead letters, sorted": "/letters?sort=trigger",
        "a dead letter": _first(r'scope="row"[^>]*><a href="(/letters/[^"]+)', letters),
        "a replay, before it is done": f"/act?act=dlq+replay&{cause.partition('?')[2]}",
        "quarantine": "/quarantine",
        "waiting": "/waiting",
        "waiting for an audience": "/waiting?audience=audience-003",
        "a person": _first(r'href="(/people/[^"]+)', waits),
        "jobs": "/jobs",
        "templates": "/templates",
        "a template": "/templates/insider/enter.jsonnet",
        "tap": "/tap",
        "audit": "/audit",
        "audit, sorted": "/audit?sort=what&by=ann",
    }


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].replace("&amp;", "&") if found else "/missing"


def _page(client: httpx.Client, path: str, used: Any, idle: Used) -> Mapping[str, float]:
    times: list[float] = []
    before = used()
    for _ in range(_PAGE_ROUNDS):
        begun = time.perf_counter()
        client.get(path).raise_for_status()
        times.append(1_000 * (time.perf_counter() - begun))
        time.sleep(_PAUSE_SECONDS)
    cost = used().since(before, idle)
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20, method="inclusive")[18], 1),
        "redis_ms": round(1_000 * cost.redis / _PAGE_ROUNDS, 2),
        "console_ms": round(1_000 * cost.console / _PAGE_ROUNDS, 2),
    }


@dataclass(slots=True)
class Tabs:
    """Tabs that ask for their pages until they are closed.

    Args:
        answered: The seconds that each answer took.
    """

    answered: list[float] = field(default_factory=list)
    closed: Event = field(default_factory=Event)

    def show(self, url: str, path: str) -> None:
        """Ask for a page again and again, at the interval that it says."""
        with httpx.Client(base_url=url, timeout=_START_SECONDS) as client:
            seconds = 0.0
            while not self.closed.wait(seconds):
                begun = time.perf_counter()
                page = client.get(path)
                self.answered.append(time.perf_counter() - begun)
                seconds = float(_first(r'data-live="(\d+)"', page.text)) or _START_SECONDS


@contextmanager
def open_tabs(url: str) -> Iterator[Tabs]:
    """Open ten tabs, each with a page that stays fresh by itself."""
    tabs = Tabs()
    threads = [Thread(target=tabs.show, args=(url, path)) for path in _TAB_PAGES[:_TABS]]
    for one in threads:
        one.start()
    try:
        yield tabs
    finally:
        tabs.closed.set()
        for one in threads:
            one.join()


def _drain(rig: Rig, console: subprocess.Popen[bytes], url: str) -> dict[str, Any]:
    """Measure the rate of a drain with tabs, and right before that while the console stands still.

    A console that runs reads the standing for some time after the last tab was closed.
    """
    start_workers(rig, 1)
    time.sleep(_WINDOW_SECONDS)
    rates: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(_WINDOWS):
        console.send_signal(signal.SIGSTOP)
        rates["without"].append(_rate(rig))
        console.send_signal(signal.SIGCONT)
        with open_tabs(url):
            rates["with"].append(_rate(rig))
    rig.stop_workers()
    ratios = [y / x for x, y in zip(rates["without"], rates["with"], strict=True) if x]
    return {
        "deliveries_per_second": {
            name: [round(each) for each in one] for name, one in rates.items()
        },
        "ratio": round(statistics.median(ratios), 3),
    }


def _rate(rig: Rig) -> float:
    """Return the deliveries that were settled a second."""
    begun, before = time.monotonic(), _settled(rig)
    time.sleep(_WINDOW_SECONDS)
    return (_settled(rig) - before) / (time.monotonic() - begun)


def _settled(rig: Rig) -> int:
    ends = ("delivered|", "skipped|", "dead|")
    return sum(count for name, count in rig.counts().items() if name.startswith(ends))
