"""The table of all benchmarks that `make bench` can run, by the scenario's name."""

from __future__ import annotations

from typing import Any, Final

from tools.bench.backfill import backfill
from tools.bench.draining import drain, drain_many_audiences
from tools.bench.frame.scenario import Scenario, Variant
from tools.bench.gate import gate
from tools.bench.latency import live_events, live_requests
from tools.bench.memory import memory
from tools.bench.publish import publish
from tools.bench.receiver import receive
from tools.bench.redis.ledger_size import CASES, ledger_size
from tools.bench.redis.nodes import deliver
from tools.bench.redis.replicated import deliver_replicated
from tools.bench.rendering import render, render_failing
from tools.bench.scrape import scrape
from tools.bench.shaping import shape
from tools.bench.starting import start
from tools.bench.stuck_trigger import drain_beside_stuck
from tools.bench.sync import sync

_RATE: Final = "events/s"
_REQUESTS: Final = "requests"
_MICROSECONDS: Final = "µs an event"
_LONG: Final = 150_000
"""Events of a long measurement, in which waiting for the first and last answer hardly counts."""
_ENTER: Final = "insider/enter.jsonnet"
_TEMPLATES: Final = {
    "page": {"template": "page_entrance.jsonnet", "folder": "tests/conformance/templates"},
    "enter": {"template": _ENTER},
    "exit": {"template": "insider/exit.jsonnet"},
}
_LIVE: Final = tuple(
    Variant(f"{part.replace('_', ' ')}, {percentile}", f"{part}/{percentile}_ms")
    for part in ("idle", "beside_a_backfill")
    for percentile in ("p50", "p99")
)
_REPLICATED: Final = {
    (servers, replicas): {"servers": servers, "replicas": replicas}
    for servers in ("sentinel", "cluster")
    for replicas in (0, 1)
}
_STEPS: Final = ("parse", "shape", "correct", "correct newer", "identifiers", "write")


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
    "answers": Scenario(
        "A backlog is drained while Insider answers late",
        _RATE,
        drain,
        (_drained("at once"), _drained("100 ms later", latency_ms=100)),
        events=_LONG,
    ),
    "triggers": Scenario(
        "The number of triggers",
        _RATE,
        drain,
        tuple(_drained(f"{count} triggers", triggers=count) for count in (2, 40, 400)),
        events=50_000,
    ),
    "partitions": Scenario(
        "The number of partitions",
        _RATE,
        drain,
        tuple(_drained(f"{count} partitions", partitions=count) for count in (16, 32, 64)),
        events=50_000,
        takes_long=True,
    ),
    "requests": Scenario(
        "Requests for 1,000 events",
        _REQUESTS,
        drain,
        tuple(
            _drained(f"{count} triggers", "requests_per_1000_events", triggers=count)
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
    "latency": Scenario("From a live event to its delivery", "ms", live_events, _LIVE),
    "starting": Scenario(
        "Until something is ready",
        "s",
        start,
        (
            Variant("segrelay --help", "commands/help/median_seconds", {"triggers": 2}),
            Variant("worker, 2 triggers", "worker/median_seconds", {"triggers": 2}),
            Variant("worker, 400 triggers", "worker/median_seconds", {"triggers": 400}),
        ),
    ),
    "backfill": Scenario(
        "A file is read into Redis",
        "rows/s",
        backfill,
        (
            Variant("1 KB rows", "rows_per_second"),
            Variant("256 partitions", "rows_per_second", {"partitions": 256}),
        ),
        events=50_000,
    ),
    "webhook": Scenario(
        "Webhooks are taken into Redis",
        _RATE,
        receive,
        (
            Variant("one event a request", "events_per_second", {"array": 1}),
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
    "many-audiences": Scenario(
        "Everybody enters many audiences at once",
        _RATE,
        drain_many_audiences,
        (
            Variant("1 audience", "events_per_second", {"audiences": 1}),
            Variant("20 audiences", "events_per_second", {"audiences": 20}),
            Variant("300 audiences", "events_per_second", {"audiences": 300}),
            Variant(
                "20 audiences, not united", "events_per_second", {"audiences": 20, "unite": False}
            ),
        ),
        events=30_000,
        takes_long=True,
    ),
    "stuck-trigger": Scenario(
        "The other triggers are drained while one is stuck",
        "s",
        drain_beside_stuck,
        (
            Variant("none is stuck", "seconds"),
            Variant("100,000 deliveries of it are paused", "seconds", {"stuck": "paused"}),
            Variant("its URL fails", "seconds", {"stuck": "failing"}),
        ),
        events=20_000,
        takes_long=True,
    ),
    "receiver-latency": Scenario(
        "From a webhook's request to Insider's answer", "ms", live_requests, _LIVE, takes_long=True
    ),
    "publishing": Scenario(
        "Processor time of publishing",
        _MICROSECONDS,
        publish,
        tuple(
            Variant(f"{place}, {count} triggers", f"{place}_us_per_event", {"triggers": count})
            for place in ("publisher", "redis")
            for count in (2, 40, 400)
        ),
        events=100_000,
        takes_long=True,
    ),
    "templates": Scenario(
        "Rendering alone, all templates",
        _MICROSECONDS,
        render,
        tuple(
            Variant(f"{name}, {way}, {kind}", f"{way}/{kind}", template)
            for name, template in _TEMPLATES.items()
            for way in ("rjsonnet", "compiled", "bare")
            for kind in ("30", "300", "1 % failing")
            if (way, kind) != ("bare", "1 % failing")
        ),
        events=1_000,
        takes_long=True,
    ),
    "failing-events": Scenario(
        "Rendering of events that fail",
        _MICROSECONDS,
        render_failing,
        tuple(
            Variant(f"{way}, {kind}", kind, {"engine": engine})
            for way, engine in (("rjsonnet", "jsonnet"), ("compiled", "auto"))
            for kind in ("none", "ten in ten ways", "30 % asserted")
        ),
        events=1_000,
        takes_long=True,
    ),
    "shaping": Scenario(
        "From a rendered body to a user of a request",
        "µs a body",
        shape,
        tuple(Variant(step, step) for step in _STEPS),
        events=1_000,
        takes_long=True,
    ),
    "ledger-size": Scenario(
        "The ledger of a profile in Redis",
        "bytes",
        ledger_size,
        tuple(Variant(case, "bytes_a_profile", {"case": case}) for case in CASES),
        events=1_000_000,
        takes_long=True,
    ),
    "memory": Scenario(
        "Growth of a worker's process over a backfill",
        "MB",
        memory,
        (Variant("most of any process", "most_grown_mb"),),
        events=1_000_000,
        takes_long=True,
    ),
    "scrape": Scenario(
        "A scrape of the metrics",
        "ms",
        scrape,
        tuple(
            Variant(f"{count} triggers, {label}", figure, {"triggers": count})
            for count in (2, 400)
            for label, figure in (("processor time", "processor_ms"), ("duration", "ms"))
        ),
        events=1_000_000,
        takes_long=True,
    ),
    "sync": Scenario(
        "An audience is compared",
        "s",
        sync,
        (
            Variant("first run", "first_run_seconds"),
            Variant("nothing has changed", "unchanged_run_seconds"),
        ),
        events=1_000_000,
        takes_long=True,
    ),
    "nodes": Scenario(
        "Processor time of Redis, on one server and on three masters of a Cluster",
        _MICROSECONDS,
        deliver,
        (
            Variant("one server", "us_per_event", {"masters": 1}),
            Variant("three masters, the sum", "us_per_event", {"masters": 3}),
            Variant("three masters, the busiest", "us_per_event_of_the_busiest", {"masters": 3}),
            Variant("three masters, the idlest", "us_per_event_of_the_idlest", {"masters": 3}),
        ),
        events=50_000,
        takes_long=True,
    ),
    "replicas": Scenario(
        "Accepting and draining while a replica has to confirm, or none",
        _RATE,
        deliver_replicated,
        tuple(
            Variant(f"{servers}, replicas = {replicas}, {part}", figure, arguments)
            for (servers, replicas), arguments in _REPLICATED.items()
            for part, figure in (
                ("accepted", "accepted_per_second"),
                ("drained", "events_per_second"),
            )
        ),
        events=50_000,
        takes_long=True,
    ),
    "replicas-latency": Scenario(
        "A webhook's answer while a replica has to confirm, or none",
        "ms",
        deliver_replicated,
        tuple(
            Variant(f"{servers}, replicas = {replicas}, {part}", f"answer/{part}_ms", arguments)
            for (servers, replicas), arguments in _REPLICATED.items()
            for part in ("p50", "p99")
        ),
        events=50_000,
        takes_long=True,
    ),
    "commands": Scenario(
        "Commands that Redis runs for a delivery",
        "commands",
        deliver,
        tuple(
            Variant(f"{label}, {part}", f"commands_of_{part}", arguments)
            for part in ("publishing", "draining")
            for label, arguments in (
                ("one server", {"masters": 1}),
                ("three masters", {"masters": 3}),
                ("16 partitions, as many in each", {"partitions": 16, "events": 3_125}),
                ("16 partitions, 16 times as many in each", {"partitions": 16}),
                ("40 triggers", {"triggers": 40}),
                ("400 triggers", {"triggers": 400}),
                ("400 triggers, 16 partitions", {"partitions": 16, "triggers": 400}),
                ("300 audiences", {"audiences": 300}),
            )
        ),
        events=50_000,
        takes_long=True,
    ),
    "sizes": Scenario(
        "The size of the backlog",
        _RATE,
        drain,
        tuple(
            _drained(f"{events:,} events", events=events, people=10_000_000)
            for events in (100_000, 1_000_000, 5_000_000)
        ),
        takes_long=True,
    ),
    "rate": Scenario(
        "The share of the rate that is used",
        "share",
        gate,
        (Variant("four processes, 600 a minute", "phases/full/share_of_limit_in_last_minute"),),
        takes_long=True,
    ),
}
"""All scenarios by name; `make bench` without a name runs those that do not take long."""
