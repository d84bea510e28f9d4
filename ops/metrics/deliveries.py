"""Metrics of deliveries: what became of them, what waits, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric

from ops.letters.reading import Cause
from ops.metrics.families import OTHER, bounded, counter, gauge, histogram, number
from ops.status.health.facts import Facts

MOST_CAUSES: Final = 20
MOST_FIELDS: Final = 50
_OF_TRIGGER: Final = ("destination", "trigger")
_OF_LANE: Final = (*_OF_TRIGGER, "lane")
_OUTCOMES: Final = {
    "accepted": "Deliveries that were accepted: an event for a trigger each.",
    "delivered": "Deliveries that the destination has taken.",
    "discarded": "Deliveries that a person has taken back.",
}
_RESENT: Final = "Deliveries that were sent again because an earlier request got no sure answer."
_REASONED: Final = {
    "skipped": "Deliveries that needed no request, by reason.",
    "dead": "Deliveries that became dead letters, by reason.",
}


def outcomes(facts: Facts) -> Iterator[Metric]:
    """Yield the counts of deliveries by outcome, for each trigger and kind of lane."""
    triggers = facts.status["triggers"].items()
    lanes = [
        ((*_labels(name, one), lane), counts)
        for name, one in triggers
        for lane, counts in one["by_lane"].items()
    ]
    for kind, meaning in _OUTCOMES.items():
        rows = ((values, counts[kind]) for values, counts in lanes)
        yield counter(f"segrelay_deliveries_{kind}", meaning, _OF_LANE, rows)
    for kind, meaning in _REASONED.items():
        reasoned = (
            ((*values, reason), count)
            for values, counts in lanes
            for reason, count in counts[f"{kind}_by_reason"].items()
        )
        yield counter(f"segrelay_deliveries_{kind}", meaning, (*_OF_LANE, "reason"), reasoned)
    resent = ((_labels(name, one), one["resent"]) for name, one in triggers if one["resent"])
    yield counter("segrelay_deliveries_resent", _RESENT, _OF_TRIGGER, resent)


def waiting(facts: Facts) -> Iterator[Metric]:
    """Yield the waiting deliveries by trigger and kind of lane, and the age of the oldest."""
    waits = [
        ((*_labels(name, one), lane), wait)
        for name, one in facts.status["triggers"].items()
        for lane, wait in one["waits"].items()
    ]
    yield gauge(
        "segrelay_deliveries_waiting",
        "Deliveries that wait.",
        _OF_LANE,
        ((values, wait["deliveries"]) for values, wait in waits),
    )
    yield gauge(
        "segrelay_oldest_waiting_seconds",
        "The time for which the oldest delivery has waited.",
        _OF_LANE,
        ((values, max(0.0, (facts.now_ms - wait["oldest_ms"]) / 1_000)) for values, wait in waits),
    )
    yield number(
        "segrelay_deliveries_orphaned",
        "Deliveries that wait where no worker delivers them.",
        facts.status["orphaned"],
    )


def times(facts: Facts) -> Iterator[Metric]:
    """Yield the times that deliveries took."""
    yield histogram(
        "segrelay_delivery_seconds",
        "The time of a delivery since its event occurred, or since it was accepted.",
        ("destination", "lane", "since"),
        (
            ((name, lane, since), document)
            for name, one in facts.status["destinations"].items()
            for lane, by_since in one["delivery_seconds"].items()
            for since, document in by_since.items()
        ),
    )


def renamed_people(facts: Facts) -> Iterator[Metric]:
    """Yield the numbers of people who were renamed by themselves, could not be, or still wait."""
    found = facts.status["renamed_people"]
    yield counter(
        "segrelay_people_renamed",
        "People whose stable id came with another identity, by what became of it.",
        ("destination", "outcome"),
        (
            ((name, outcome), one[outcome])
            for name, one in found.items()
            for outcome in ("renamed", "refused")
        ),
    )
    yield gauge(
        "segrelay_people_to_rename",
        "People who are still to be renamed; their deliveries wait.",
        ("destination",),
        (((name,), one["waiting"]) for name, one in found.items()),
    )


def letters(facts: Facts, causes: list[Cause]) -> Iterator[Metric]:
    """Yield the dead letters, by destination and by cause."""
    yield gauge(
        "segrelay_letters",
        "Dead letters that lie there.",
        ("destination",),
        (((name,), one["letters"]) for name, one in facts.status["destinations"].items()),
    )
    kept = causes[:MOST_CAUSES]
    rows = [((one.cause, one.reason, one.trigger), one.count) for one in kept]
    if rest := sum(one.count for one in causes[MOST_CAUSES:]):
        rows.append(((OTHER, OTHER, OTHER), rest))
    yield gauge(
        "segrelay_letters_by_cause",
        "Dead letters by cause, as `segrelay dlq causes` shows them; the trigger is one of them.",
        ("cause", "reason", "trigger"),
        rows,
    )


def left_out(facts: Facts) -> Iterator[Metric]:
    """Yield the quarantine, and the fields that a destination would not have taken."""
    yield number(
        "segrelay_quarantine_records",
        "Events that could not be placed.",
        facts.status["quarantined"],
    )
    yield counter(
        "segrelay_dropped_fields",
        "Fields that were left out of user objects because the destination would not take them.",
        ("field",),
        (((name,), n) for name, n in bounded(facts.status["dropped_fields"], MOST_FIELDS)),
    )


def _labels(name: str, trigger: Mapping[str, Any]) -> tuple[str, str]:
    return trigger["destination"], name
