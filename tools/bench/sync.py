"""A benchmark of sync: what comparing an audience costs besides the network."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from segrelay.producer.lytics import Page
from segrelay.producer.publish import Publisher
from segrelay.producer.sync.sources import Look
from segrelay.producer.sync.step import Syncing, syncing_for
from segrelay.producer.wakeups import SilentWaker
from tools.bench.frame.redis_alone import redis_alone, used_memory

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


def sync(events: int) -> dict[str, Any]:
    """Measure a first run, which learns of all members, and a second one that finds no change.

    The members are generated in this process; nothing is published.
    """
    audience = GeneratedAudience(events)

    def opened(_: Callable[[float], None]) -> nullcontext[GeneratedAudience]:
        return nullcontext(audience)

    with redis_alone(_CONFIGURATION) as on:
        client = on.client
        publisher = Publisher(client, on.settings, waker=SilentWaker())
        syncing = replace(syncing_for(client, on.settings, "vip", publisher), open_source=opened)
        before = used_memory(client)
        return {
            "first_run_seconds": round(_run(syncing), 1),
            "unchanged_run_seconds": round(_run(syncing), 1),
            "redis_mb": (used_memory(client) - before) // _MEGABYTE,
            "process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 // _MEGABYTE,
            "members": syncing.store.peek().seen["bench"],
        }


class GeneratedAudience:
    """A source of invented members, page by page; see `producer.sync.sources.SyncSource`."""

    is_live = True

    def __init__(self, members: int) -> None:
        self._members = members

    def page(self, start: str) -> Page:
        """Return the page of members that begins at the token, the number of its first row."""
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
        """Raise an error: no generated member is ever missing, so none is looked up."""
        raise NotImplementedError(profile_key)

    def refuse_change(self, origin: str) -> None:
        """Do nothing: the generated members never change."""


def _run(syncing: Syncing) -> float:
    """Run the sync once, and return the seconds that it took."""
    begun = time.monotonic()
    more = syncing.step(forced=True).more
    while more:
        more = syncing.step().more
    return time.monotonic() - begun
