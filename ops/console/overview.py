"""The pages Now, Tap and Audit: the present state with its plots, latest outcomes, and acts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice, pairwise
from typing import Any, Final

import orjson
from markupsafe import Markup

from segrelay.ops.audit import ActOptions
from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    listed,
)
from segrelay.ops.console.look import LINES_FRESH_SECONDS, SPANS
from segrelay.ops.state.person import is_digest
from segrelay.ops.status.problems import HealthProblem, gone_ms
from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS, OUTCOMES, REASONED, Counts, counts_of
from segrelay.ops.tap import OUTCOMES as TAP_OUTCOMES
from segrelay.ops.tap import TapOptions, detail_of
from segrelay.worker.contract.outcomes import ASKED, REQUEST_BOUNDS, Histogram, OutcomeRow
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.redis.acts import Act, read_acts
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.triggers import DESTINATION, TRIGGER
from segrelay.worker.contract.words import BACKFILL
from segrelay.worker.errors import UsageWrong

_WHERE: Final[Mapping[str, str]] = {
    "dlq causes": "/letters",
    "quarantine list": "/quarantine",
    "sync status": "/jobs",
    "backfill status": "/jobs",
    "template check": "/templates",
    "config check": "/templates",
    "audit": "/audit",
}
"""Pages that show what these commands show."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A problem with what can be done about it here.

    Args:
        address: The address of the page that acts, or shows what the command shows; "" = none.
        label: On the button.
        act: The command that the page runs; "" = it only shows.
    """

    problem: HealthProblem
    address: str = ""
    label: str = ""
    act: str = ""

    @classmethod
    def of(cls, problem: HealthProblem) -> Remedy:
        """Return the remedy that the problem's command names."""
        for part in problem.commands:
            found = act_in(part)
            if found:
                act, values = found
                if act.command == "sync confirm":
                    return cls(problem, f"/syncs/{values['sync']}", "Who would leave?")
                address = address_of("/act", {"act": act.command, **values, "back": "/"})
                return cls(problem, address, act.title, act.command)
        for command, page in _WHERE.items():
            if problem.command.startswith(f"segrelay {command}"):
                return cls(problem, page, "Look")
        return cls(problem)


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """The counts of a part of all deliveries; `gone_ms` is when nothing of it waits any more."""

    name: str
    counts: Counts
    kind: str
    condition: Any = None
    gone_ms: int | None = None

    @property
    def need(self) -> tuple[bool, bool, int, int]:
        """Return how much it needs a look: what stands still comes before what only waits."""
        is_ill = self.condition is not None and self.condition.stops
        counts = self.counts
        return is_ill, self.condition.state != "ok", counts.dead, counts.waiting


def now(console: Console, asked: Asked) -> Page:
    """Show problems, the balance, plots of a span of time, gates and workers."""
    judged = console.look.judged()
    standing, waiting = judged.standing, judged.standing.counts.waiting
    span = asked.get("span") if asked.get("span") in SPANS else "hour"
    kind, _, name = asked.get("of").partition(":")
    place, trigger = (name if kind == one else "" for one in (DESTINATION, TRIGGER))
    by_trigger = sorted(
        (
            BalanceRow(name, one.counts, TRIGGER, one.condition)
            for name, one in standing.triggers.items()
        ),
        key=lambda row: row.need,
        reverse=True,
    )
    allowed = sum(g.rate * g.factor for n, g in standing.destinations.items() if place in ("", n))
    values = listed(asked, by_trigger) | {
        "standing": standing,
        "remedies": [Remedy.of(one) for one in judged.problems],
        "kinds": KINDS,
        "total": BalanceRow("", standing.counts, "all", None, gone_ms(standing, waiting)),
        "reasons": {kind: standing.counts.by_reason(kind) for kind in REASONED},
        **_parts(standing),
        "span": span,
        "of": asked.get("of"),
        "spans": list(SPANS),
        "plots": plots_of(console.look.samples[span](), allowed, place, trigger),
    }
    return Page("now.html", "Now", values, live_seconds=console.live_seconds)


def _parts(standing: Standing) -> dict[str, list[BalanceRow]]:
    """Return the rows of lanes, and those of destinations."""
    lanes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in standing.triggers.values():
        places[one.destination].update({kind: one.counts.of(kind) for kind in KINDS})
        for lane, counts in one.by_lane.items():
            lanes[lane].update({kind: counts.of(kind) for kind in OUTCOMES})
        for lane, wait in one.waits.items():
            lanes[lane]["waiting"] += wait.deliveries

    def row(name: str, tally: Counter[str], kind: str, part: str) -> BalanceRow:
        place = standing.destinations[name] if kind == DESTINATION else None
        gone = gone_ms(standing, tally["waiting"], part, name if place else "")
        return BalanceRow(name, counts_of(tally), kind, place and place.condition, gone)

    return {
        "lanes": [row(n, tally, "lane", n.replace(BACKFILL, "jobs")) for n, tally in lanes.items()],
        "by_destination": [
            row(n, places[n], DESTINATION, "settled") for n in standing.destinations
        ],
    }


_SHOWN: Final = 100


def tap(console: Console, asked: Asked) -> Page:
    """Show the newest rows of the outcome log."""
    filters = {field.name: asked.get(field.name) for field in fields(TapOptions)}
    rows: list[tuple[OutcomeRow, str]] = []
    problem = "A person is a digest here: the page of a person shows it."
    if not filters["person"] or is_digest(filters["person"]):
        try:
            wanted, problem = TapOptions(**filters).chosen(console.look.settings), ""
            found = (row for row in console.look.outcomes() if wanted.wants(row))
            rows = [(row, detail_of(row)) for row in islice(found, _SHOWN)]
        except UsageWrong as error:
            problem = error.message
    values = {"rows": rows, "problem": problem, "filters": filters, "outcomes": TAP_OUTCOMES}
    return Page("tap.html", "Tap", values, live_seconds=LINES_FRESH_SECONDS)


def audit(console: Console, asked: Asked) -> Page:
    """Show what people did, filtered as `segrelay audit` filters it."""
    names = ("what", "by", "subject", "since", "text")
    filters = {name: asked.get(name) for name in names}
    options = ActOptions(filters["what"], filters["subject"], filters["by"], filters["since"])
    chosen = options.chosen(read_acts(console.look.client), now_ms(console.look.client))
    text = filters["text"].casefold()
    acts = [act for act in chosen if not text or _has_text(act, text)]
    values = listed(asked, acts) | {
        "filters": filters,
        "started": console.started.latest(),
    }
    return Page("audit.html", "Audit", values)


def _has_text(act: Act, text: str) -> bool:
    found = (act.what, act.subject, act.reason, *act.arguments.values())
    return any(text in each.casefold() for each in found)


_WIDTH, _HEIGHT = 240, 48
_LINE: Final = Markup(
    '<svg class="plot {kind}" viewBox="0 0 240 48" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}" data-points="{points}" data-unit="{unit}"><polygon points="{left},'
    '48 {line} {right},48"/><polyline points="{line}"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of one measure, with its newest value.

    Args:
        points: Times (ms) with values, the oldest first; None = not known.
        unit: The unit behind a value, such as ` ms`.
    """

    title: str
    kind: str
    points: Sequence[tuple[int, float | None]]
    unit: str

    @property
    def known(self) -> list[tuple[int, float]]:
        """Return the points whose values are known."""
        return [(at_ms, value) for at_ms, value in self.points if value is not None]

    @property
    def newest(self) -> str:
        """Return the newest value in words."""
        return f"{self.known[-1][1]:,.0f}{self.unit}" if self.known else "-"

    @property
    def highest(self) -> str:
        """Return the highest value in words."""
        found = max((value for _, value in self.known), default=None)
        return "-" if found is None else f"{found:,.0f}{self.unit}"

    @property
    def svg(self) -> Markup:
        """Return the drawing; the script shows the value under the pointer."""
        known = self.known
        if len(known) < 2:  # noqa: PLR2004 - a line has two ends
            return Markup('<p class="quiet">no samples yet</p>')
        first_ms, span_ms = self.points[0][0], self.points[-1][0] - self.points[0][0]
        highest = max(value for _, value in known) or 1.0
        line = [
            (_WIDTH * (at_ms - first_ms) / span_ms, _HEIGHT - 2 - value / highest * (_HEIGHT - 6))
            for at_ms, value in known
        ]
        return _LINE.format(
            kind=self.kind if any(value for _, value in known) else "calm",
            line=" ".join(f"{x:.1f},{y:.1f}" for x, y in line),
            left=f"{line[0][0]:.1f}",
            right=f"{line[-1][0]:.1f}",
            label=f"{self.title}: now {self.newest}, at most {self.highest}",
            points=orjson.dumps([(at_ms, round(value)) for at_ms, value in known]).decode(),
            unit=self.unit,
        )


def plots_of(
    samples: Sequence[Sample], allowed: float, destination: str = "", trigger: str = ""
) -> Iterator[Plot]:
    """Yield the plots of everything, of a destination, or of a trigger.

    Args:
        samples: The oldest first.
        allowed: The requests a minute that may be sent.
        destination: The only one that counts; "" = all.
        trigger: The only one that counts, of which only outcomes are sampled; "" = all.
    """
    counts = list({one.at_ms: _measures(one, destination, trigger) for one in samples}.items())

    def grown(
        title: str, kind: str, unit: str, measure: Callable[[Counter[str], float], float | None]
    ) -> Plot:
        """Return a plot of the growth from each sample to the next, and of the minutes."""
        steps = (pair for pair in pairwise(counts) if pair[1][0] > pair[0][0])
        points = [
            (at_ms, measure(new - old, (at_ms - then_ms) / 60_000))
            for (then_ms, old), (at_ms, new) in steps
        ]
        return Plot(title, kind, points, unit)

    yield grown("Delivered", "good", "/min", lambda n, minutes: n["delivered"] / minutes)
    yield grown("Dead", "bad", "/min", lambda n, minutes: n["dead"] / minutes)
    if not trigger:
        yield Plot("Waiting", "calm", [(at_ms, n["waits"]) for at_ms, n in counts], "")
        yield grown(
            "Rate used",
            "calm",
            " %",
            lambda n, minutes: 100 * n["requests"] / minutes / allowed if allowed else None,
        )
        yield grown("Answers p50", "calm", " ms", partial(_answer_ms, 0.5))
        yield grown("Answers p95", "calm", " ms", partial(_answer_ms, 0.95))


def _answer_ms(share: float, grown: Counter[str], _: float) -> float | None:
    """Return the time (ms) within which this share of the answers came."""
    seconds = Histogram.read(grown, ASKED, REQUEST_BOUNDS).quantile(share)
    return None if seconds is None else 1_000 * seconds


def _measures(sample: Sample, destination: str, trigger: str) -> Counter[str]:
    """Return the counts of a sample by their kind, and the times of answers by bucket."""
    found: Counter[str] = Counter()
    for name, counts in sample.counts.items():
        if destination in ("", name):
            for field, count in counts.items():
                kind, _, rest = field.partition("|")
                if trigger in ("", rest.partition("|")[0]):
                    found[field if kind == ASKED else kind] += count
    return found
