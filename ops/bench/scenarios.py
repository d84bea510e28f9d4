"""What `make bench` measures: each scenario is one benchmark, run with different arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVENTS_A_SECOND: Final = "events/s"
_BACKLOG: Final = "accept_then_drain/events_per_second"
_LONG: Final = "150000"
"""So many that waiting for the first and the last answer hardly counts."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One bar of a scenario.

    Args:
        label: For a person.
        arguments: Of the benchmark; `{events}` stands for the number that was asked for.
        figure: Where the benchmark's document has the value, e.g. `0/events_per_second`.
    """

    label: str
    arguments: str
    figure: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Variants that are compared with the first of them, within each run.

    Args:
        title: Says what is compared.
        module: The benchmark, in `ops.bench`.
        unit: Of the values.
        variants: In one run they are measured one right after the other.
        takes_long: It is left out unless it is named.
    """

    title: str
    module: str
    unit: str
    variants: tuple[Variant, ...]
    takes_long: bool = False


def _drained(label: str, arguments: str = "", events: str = "{events}") -> Variant:
    people = "--people 1000000" if "--people" not in arguments else ""
    given = f"--backlog-only --events {events} {people} {arguments}"
    return Variant(label, " ".join(given.split()), _BACKLOG)


def _triggers(count: int, figure: str) -> Variant:
    arguments = f"--triggers {count} --events {{events}} --people 1000000"
    return Variant(f"{count} triggers", arguments, f"0/{figure}")


def _rendering(way: str, fields: int) -> Variant:
    return Variant(f"{way}, {fields} fields", "", f"enter/{way}/{fields}")


SCENARIOS: Final[dict[str, Scenario]] = {
    "end-to-end": Scenario(
        "A backlog is drained",
        "end_to_end",
        EVENTS_A_SECOND,
        (
            _drained("1 KB"),
            _drained("8 KB, 300 fields", "--profile-bytes 8000 --fields 300"),
            _drained("three triggers, mixed", "--exit-events"),
            _drained("few people", "--people 20000"),
        ),
    ),
    "answers": Scenario(
        "A backlog is drained while Insider answers late",
        "end_to_end",
        EVENTS_A_SECOND,
        (
            _drained("at once", events=_LONG),
            _drained("100 ms later", "--latency-ms 100", events=_LONG),
        ),
    ),
    "triggers": Scenario(
        "The number of triggers",
        "triggers",
        EVENTS_A_SECOND,
        tuple(_triggers(count, "events_per_second") for count in (2, 40, 400)),
    ),
    "requests": Scenario(
        "Requests for 1,000 events",
        "triggers",
        "requests",
        tuple(_triggers(count, "requests_per_1000_events") for count in (2, 40, 400)),
    ),
    "rendering": Scenario(
        "Rendering alone, one core",
        "rendering",
        "µs an event",
        tuple(_rendering(way, fields) for fields in (30, 300) for way in ("rjsonnet", "compiled")),
    ),
    "latency": Scenario(
        "From a live event to its delivery",
        "latency",
        "ms",
        (
            Variant("idle, p50", "--events 200 --backfill 0", "idle/p50_ms"),
            Variant("idle, p99", "--events 200 --backfill 0", "idle/p99_ms"),
            Variant(
                "beside a backfill, p99",
                "--events 200 --backfill 100000",
                "beside_a_backfill/p99_ms",
            ),
        ),
    ),
    "starting": Scenario(
        "Until something is ready",
        "starting",
        "s",
        (
            Variant("segrelay --help", "--runs 3 --triggers 2", "commands/help/median_seconds"),
            Variant(
                "worker, 2 triggers", "--runs 3 --triggers 2", "workers/0/ready/median_seconds"
            ),
            Variant(
                "worker, 400 triggers", "--runs 3 --triggers 400", "workers/0/ready/median_seconds"
            ),
        ),
    ),
    "backfill": Scenario(
        "A file is read into Redis",
        "backfill",
        "rows/s",
        (Variant("1 KB rows", "{events}", "0/rows_per_second"),),
    ),
    "webhook": Scenario(
        "Webhooks are taken into Redis",
        "webhook",
        EVENTS_A_SECOND,
        (
            Variant("one event a request", "--events 0", "received/0/events_per_second"),
            Variant("100 events a request", "--events 0", "received/1/events_per_second"),
        ),
    ),
    "sizes": Scenario(
        "The size of the backlog",
        "end_to_end",
        EVENTS_A_SECOND,
        tuple(
            _drained(f"{events:,} events", "--people 10000000", str(events))
            for events in (100_000, 1_000_000, 5_000_000)
        ),
        takes_long=True,
    ),
    "rate": Scenario(
        "The share of the rate that is used",
        "gate",
        "share",
        (Variant("four processes, 600 a minute", "", "phases/full/share_of_limit_in_last_minute"),),
        takes_long=True,
    ),
}
