"""What comparing an audience costs besides the network: `python -m ops.bench.sync [MEMBERS]`.

The source is a generator in this process, Redis an embedded one as it runs in production. The first
run learns of all members, the second finds that nothing has changed; nothing is published.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from redis import Redis

from ops.bench.frame.ground import ground
from ops.terminal.console import say
from producer.doorbell import SilentDoorbell
from producer.lytics import Page
from producer.publish import Publisher
from producer.sync.opening import syncing_for
from producer.sync.sources import Look
from producer.sync.step import Syncing

_MEMBERS: Final = 1_000_000
_PAGE_ROWS: Final = 100
_MEGABYTE: Final = 1_000_000
_CONFIGURATION: Final = """\
[lytics]
token = "nobody's"
[destinations.bench]
api = "http"
base_url = "https://bench.example.com"
rate = "1000/min"
[triggers.bench-exit]
destination = "bench"
audiences = ["vip"]
on = "exit"
template = "http/event.jsonnet"
url = "/"
[sync.vip]
audience = "vip"
every = "1d"
"""


class GeneratedAudience:
    """So many members, page by page; see `producer.sync.sources.SyncSource`."""

    is_live = True

    def __init__(self, members: int) -> None:
        self._members = members

    def page(self, start: str) -> Page:
        """Return a page; its token is the number of its first row."""
        first = int(start or 0)
        after = min(first + _PAGE_ROWS, self._members)
        rows = [
            {
                "_uid": f"{number:032x}",
                "email": f"first.last.{number}@example.com",
                "segments": ["all", "vip"],
                "first_name": "Ann",
                "score": number % 100,
            }
            for number in range(first, after)
        ]
        following = str(after) if after < self._members else ""
        return Page(rows, following, self._members, datetime.now(UTC))

    def look(self, profile_key: str) -> Look:
        """Nobody is missing."""
        raise NotImplementedError(profile_key)

    def refuse_change(self, origin: str) -> None:
        """Nothing changes."""


def measured(syncing: Syncing) -> float:
    """Do a run; returns how many seconds it took."""
    begun = time.monotonic()
    more = syncing.step(forced=True).more
    while more:
        more = syncing.step().more
    return time.monotonic() - begun


@contextmanager
def _world(members: int) -> Iterator[tuple[Redis, Syncing]]:
    with ground(_CONFIGURATION) as on:
        publisher = Publisher(on.client, on.settings, doorbell=SilentDoorbell())
        audience = GeneratedAudience(members)

        def opened(_: Callable[[float], None]) -> nullcontext[GeneratedAudience]:
            return nullcontext(audience)

        syncing = syncing_for(on.client, on.settings, "vip", publisher)
        yield on.client, replace(syncing, open_source=opened)


def main() -> None:
    """Print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", nargs="?", type=int, default=_MEMBERS)
    members = parser.parse_args().members
    with _world(members) as (client, syncing):
        before = int(client.info("memory")["used_memory"])
        say(f"sync, {members:,} members, first run: {measured(syncing):.1f} s")
        say(f"sync, {members:,} members, nothing has changed: {measured(syncing):.1f} s")
        used = int(client.info("memory")["used_memory"]) - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
        say(f"in Redis: {used // _MEGABYTE} MB; this process at most {peak // _MEGABYTE} MB")
        found = syncing.book.peek()
        say(f"{found.rows:,} rows, {found.seen['bench']:,} members, {found.line()}")


if __name__ == "__main__":
    main()
