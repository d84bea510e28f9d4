"""The pages Now, Tap and Audit: the present state, the latest outcomes, and the acts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Final

from segrelay.ops.audit import ActOptions
from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    columns_of,
    listed,
)
from segrelay.ops.console.look import LINES_FRESH_SECONDS, SPANS
from segrelay.ops.console.plots import plots_of
from segrelay.ops.state.person import is_digest
from segrelay.ops.status.lateness import gone_ms
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS, OUTCOMES, REASONED, Counts, counts_of
from segrelay.ops.tap import OUTCOMES as TAP_OUTCOMES
from segrelay.ops.tap import TapOptions, detail_of
from segrelay.worker.contract.outcomes import OutcomeRow
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


_COMMANDS: Final = re.compile(r"segrelay .*?(?=; |, | if |$)")
"""The commands in a problem's remedy, which may be a sentence."""


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
        for part in _COMMANDS.findall(problem.command):
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


_ROW_COLUMNS: Final = columns_of(
    "need", "name", state="condition.state", **{kind: f"counts.{kind}" for kind in KINDS}
)


def now(console: Console, asked: Asked) -> Page:
    """Show problems, the balance, plots of a span of time, gates and workers."""
    judged = console.look.judged()
    standing, waiting = judged.standing, judged.standing.counts.waiting
    span = asked.get("span") if asked.get("span") in SPANS else "hour"
    kind, _, name = asked.get("of").partition(":")
    place, trigger = (name if kind == one else "" for one in (DESTINATION, TRIGGER))
    by_trigger = (
        BalanceRow(name, one.counts, TRIGGER, one.condition)
        for name, one in standing.triggers.items()
    )
    allowed = sum(g.rate * g.factor for n, g in standing.destinations.items() if place in ("", n))
    values = listed(asked, by_trigger, _ROW_COLUMNS, "-need") | {
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


_ACTS: Final = columns_of("what", "count", at="at_ms", who="by", of="subject")


def audit(console: Console, asked: Asked) -> Page:
    """Show what people did, filtered as `segrelay audit` filters it."""
    names = ("what", "by", "subject", "since", "text")
    filters = {name: asked.get(name) for name in names}
    options = ActOptions(filters["what"], filters["subject"], filters["by"], filters["since"])
    chosen = options.chosen(read_acts(console.look.client), now_ms(console.look.client))
    text = filters["text"].casefold()
    acts = (act for act in chosen if not text or _has_text(act, text))
    values = listed(asked, acts, _ACTS, "-at", _SHOWN) | {
        "filters": filters,
        "started": console.started.latest(),
    }
    return Page("audit.html", "Audit", values)


def _has_text(act: Act, text: str) -> bool:
    found = (act.what, act.subject, act.reason, *act.arguments.values())
    return any(text in each.casefold() for each in found)
