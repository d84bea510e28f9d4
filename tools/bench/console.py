"""A benchmark of the console: what a page costs with very much in Redis, and what open tabs cost.

A page is asked for as a reader does it, with a second between two pages, so that each needs data
that is new. Tabs ask as the script of the pages does, at the interval that each page says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Final

from segrelay.ops.dead_letters.reading import dead_letters_kept
from segrelay.ops.demo.rig import Rig
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import Happening, payloads
from segrelay.worker.contract.redis.acts import MOST_ACTS, Act, note_act
from tools.bench.rigs import (
    audiences_of,
    send,
    start_workers,
    wait_until,
)

_TRIGGERS: Final = 400
_LETTERS: Final = 100_000
_BROKEN: Final = """\
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

local invalid = [{}, { users: 1 }, { users: [1] }, { users: [{ identifiers: 1 }] }];
local number = event.get("purchases");

if number < 4 then invalid[number]
else { users: [{ identifiers: insider.identifiers, attributes: { name: "Ann" } }] }
"""
"""A template of whose bodies a third is invalid: if all were, its trigger would pause."""
_OF_ONE_LETTER: Final = 3.3
"""The events of which about one dies."""
_TABLES: Final = """
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
_MOST_SECONDS: Final = 1_800.0
_START_SECONDS: Final = 60.0


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


def _fill(rig: Rig, events: int, letters: int, triggers: int) -> None:
    """Bring about dead letters, acts, and deliveries that wait."""
    first = 10 * events
    start_workers(rig, 1)
    send(rig, chain.from_iterable(_events(round(_OF_ONE_LETTER * letters), ["broken"], first)))
    wait_until(
        lambda: sum(dead_letters_kept(rig.client, rig.partitions())) >= letters,
        _MOST_SECONDS,
        "The letters do not die.",
    )
    rig.stop_workers()
    for number in range(MOST_ACTS):
        note_act(rig.client, Act("pause", "ann", f"trigger {number % 400}", reason="a test"))
    publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
    for block in _events(events, audiences_of(triggers)):
        publisher.publish(block)
