"""The table of all benchmarks that `make bench` can run, by the scenario's name."""

from __future__ import annotations

from typing import Any, Final

from tools.bench.costs import deliver
from tools.bench.draining import drain
from tools.bench.gate import gate
from tools.bench.intake import backfill, receive, send_payloads
from tools.bench.latency import live_events
from tools.bench.rendering import render
from tools.bench.runs import Scenario, Variant

_RATE: Final = "events/s"
_MICROSECONDS: Final = "µs an event"
_AUDIENCES: Final = 200
"""The number of audiences where triggers are compared: whoever enters one and leaves another needs
a request for each, one after the other, however few triggers there are."""
_ENTER: Final = "insider/enter.jsonnet"
_BESIDE: Final = {
    "idle": "nothing",
    "beside a backfill that is drained": "drained",
    "beside a backfill that is read and drained": "read",
}
_LIVE: Final = tuple(
    Variant(f"{label}, {percentile}", f"until_arrived/{percentile}_ms", {"beside": beside})
    for label, beside in _BESIDE.items()
    for percentile in ("p50", "p99", "most")
)
_BACKFILLS: Final = tuple(
    Variant(
        f"a backfill is {label}, {'beside live events' if live else 'alone'}",
        "events_per_second",
        {"beside": beside, "live": live},
    )
    for label, beside in (("drained", "drained"), ("read and drained", "read"))
    for live in (False, True)
)


def _drained(label: str, figure: str = "events_per_second", **arguments: Any) -> Variant:
    return Variant(label, figure, arguments)


SCENARIOS: Final[dict[str, Scenario]] = {
    "end-to-end": Scenario(
        "A backlog is drained",
        _RATE,
        drain,
        (
            _drained("1 KB"),
            _drained("8 KB, 300 fields", profile_bytes=8_000, fields=300),
            _drained("three triggers, mixed", exit_events=True),
            _drained("few people", people=20_000),
        ),
        events=50_000,
    ),
    "triggers": Scenario(
        "The number of triggers",
        _RATE,
        drain,
        tuple(
            _drained(f"{count} triggers{what}", figure, triggers=count, audiences=_AUDIENCES)
            for what, figure in (
                ("", "events_per_second"),
                (", requests for 1,000 events", "requests_per_1000_events"),
            )
            for count in (2, 40, 400)
        ),
        events=50_000,
    ),
    "rendering": Scenario(
        "Rendering alone, one core",
        _MICROSECONDS,
        render,
        tuple(
            Variant(f"{way}, {fields} fields", f"{way}/{fields}", {"template": _ENTER})
            for fields in (30, 300)
            for way in ("rjsonnet", "compiled")
        ),
        events=1_000,
    ),
    "latency": Scenario(
        "From a live event's request until Insider has the person",
        "ms",
        live_events,
        _LIVE,
        events=150_000,
    ),
    "beside-live": Scenario(
        "A backfill, alone and beside live events", _RATE, live_events, _BACKFILLS, events=150_000
    ),
    "backfill": Scenario(
        "A file is read into Redis",
        "rows/s",
        backfill,
        (
            Variant("JSON lines", "rows_per_second"),
            Variant("Parquet", "rows_per_second", {"kind": "parquet"}),
            Variant("JSON lines, 256 partitions", "rows_per_second", {"partitions": 256}),
        ),
        events=200_000,
    ),
    "send": Scenario(
        "A file of payloads is sent into Redis",
        "payloads/s",
        send_payloads,
        (Variant("1 KB payloads", "payloads_per_second"),),
        events=200_000,
    ),
    "webhook": Scenario(
        "Webhooks are taken into Redis",
        _RATE,
        receive,
        (
            Variant("one event a request", "events_per_second", {"array": 1}),
            Variant("one event a request, p99 in ms", "p99_ms", {"array": 1}),
            Variant("100 events a request", "events_per_second", {"array": 100}),
        ),
        events=50_000,
    ),
    "accepting": Scenario(
        "Events are accepted, and drained afterwards or meanwhile",
        _RATE,
        drain,
        tuple(
            _drained(
                f"{label}, {3 if three else 2} triggers",
                figure,
                people=40_000,
                exit_events=three,
                while_draining=meanwhile,
            )
            for three in (False, True)
            for label, figure, meanwhile in (
                ("accepted, then drained", "events_per_second", False),
                ("accepted while being drained", "events_per_second", True),
                ("accepting alone", "accepted_per_second", False),
            )
        ),
        events=50_000,
        takes_long=True,
    ),
    "redis": Scenario(
        "Processor time of Redis for publishing and draining",
        _MICROSECONDS,
        deliver,
        tuple(
            Variant(f"{count} partitions", "us_per_event", {"partitions": count})
            for count in (16, 256)
        ),
        events=50_000,
        takes_long=True,
    ),
    "rate": Scenario(
        "The share of the rate that is used",
        "share",
        gate,
        (Variant("four processes, 600 a minute", "share_of_limit_in_last_minute"),),
        takes_long=True,
    ),
}
"""All scenarios by name; `make bench` without a name runs those that do not take long."""
