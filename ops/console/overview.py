"""The pages Now, Tap and Audit: the present state, the latest outcomes, and the acts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from segrelay.ops.audit import ActOptions
from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import (
    Asked,
    Columns,
    Console,
    Page,
    address_of,
    listed,
)
from segrelay.ops.console.look import LINES_FRESH_SECONDS
from segrelay.ops.console.plots import plots_of
from segrelay.ops.state.person import is_digest
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS, OUTCOMES, REASONED, Counts, counts_of
from segrelay.ops.tap import OUTCOMES as TAP_OUTCOMES
from segrelay.ops.tap import TapOptions, detail_of
from segrelay.worker.contract.outcomes import OutcomeRow
from segrelay.worker.contract.redis.acts import Act, read_acts
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.errors import UsageWrong

_WHERE: Final[Mapping[str, str]] = {
    "dlq causes": "/letters",
    "quarantine list": "/quarantine",
    "sync status": "/jobs",
    "backfill status": "/jobs",
    "template check": "/templates",
    "config check": "/templates",
    "status": "/",
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
    """

    problem: HealthProblem
    address: str = ""
    label: str = ""

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
                return cls(problem, address, act.title)
        for command, page in _WHERE.items():
            if problem.command.startswith(f"segrelay {command}") and page != "/":
                return cls(problem, page, "Look")
        return cls(problem)


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """The counts of a part of all deliveries."""

    name: str
    counts: Counts
    kind: str
    condition: Any = None

    @property
    def need(self) -> tuple[bool, bool, int, int]:
        """Return how much it needs a look: what stands still comes before what only waits."""
        is_ill = self.condition is not None and self.condition.stops
        counts = self.counts
        return is_ill, self.condition.state != "ok", counts.dead, counts.waiting


_ROW_COLUMNS: Final[Columns] = {
    "need": lambda row: row.need,
    "name": attrgetter("name"),
    "state": lambda row: row.condition.state,
    **{kind: attrgetter(f"counts.{kind}") for kind in KINDS},
}


def now(console: Console, asked: Asked) -> Page:
    """Show problems, the balance, the last hour, gates and workers."""
    judged = console.look.judged()
    standing = judged.standing
    by_trigger = (
        BalanceRow(name, one.counts, "trigger", one.condition)
        for name, one in standing.triggers.items()
    )
    values = listed(asked, by_trigger, _ROW_COLUMNS, "-need") | {
        "standing": standing,
        "remedies": [Remedy.of(one) for one in judged.problems],
        "kinds": KINDS,
        "total": BalanceRow("", standing.counts, "all"),
        "reasons": {kind: standing.counts.by_reason(kind) for kind in REASONED},
        "lanes": list(_by_lane(standing)),
        "by_destination": list(_by_destination(standing)),
        "plots": plots_of(standing, console.look.hour()),
        "started": console.started.latest()[:5],
    }
    return Page("now.html", "Now", values, live_seconds=console.live_seconds)


def _by_lane(standing: Standing) -> Iterator[BalanceRow]:
    lanes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in standing.triggers.values():
        for lane, counts in one.by_lane.items():
            lanes[lane].update({kind: counts.of(kind) for kind in OUTCOMES})
        for lane, wait in one.waits.items():
            lanes[lane]["waiting"] += wait.deliveries
    for lane, row in lanes.items():
        yield BalanceRow(lane, counts_of(row), "lane")


def _by_destination(standing: Standing) -> Iterator[BalanceRow]:
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in standing.triggers.values():
        rows[one.destination].update({kind: one.counts.of(kind) for kind in KINDS})
    for name, destination in standing.destinations.items():
        yield BalanceRow(name, counts_of(rows[name]), "destination", destination.condition)


_SHOWN: Final = 100


def tap(console: Console, asked: Asked) -> Page:
    """Show the newest rows of the outcome log."""
    filters = {field.name: asked.get(field.name) for field in fields(TapOptions)}
    rows: list[tuple[OutcomeRow, str]] = []
    problem = ""
    if filters["person"] and not is_digest(filters["person"]):
        problem = "A person is a digest here: the page of a person shows it."
    else:
        try:
            wanted = TapOptions(**filters).chosen(console.look.settings)
        except UsageWrong as error:
            problem = error.message
        else:
            found = (row for row in console.look.outcomes() if wanted.wants(row))
            rows = [(row, detail_of(row)) for row in islice(found, _SHOWN)]
    values = {"rows": rows, "problem": problem, "filters": filters, "outcomes": TAP_OUTCOMES}
    return Page("tap.html", "Tap", values, live_seconds=LINES_FRESH_SECONDS)


_ACTS: Final[Columns] = {
    "at": attrgetter("at_ms"),
    "who": attrgetter("by"),
    "what": attrgetter("what"),
    "of": attrgetter("subject"),
    "count": attrgetter("count"),
}


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
