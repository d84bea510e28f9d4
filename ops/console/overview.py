"""The pages Now, Tap and Audit: how everything stands, what goes through, and who did what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from segrelay.ops.audit import ActOptions
from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import Asked, Columns, Console, Page, Sorting, address_of
from segrelay.ops.console.plots import plots_of
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS, OUTCOMES, REASONED, Counts
from segrelay.worker.contract.events import HistoryLine
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import MOST_ACTS, Act
from segrelay.worker.contract.redis.connection import now_ms

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
        for part in problem.command.split("; "):
            found = act_in(part)
            if found:
                act, values = found
                address = address_of("/act", {"act": act.command, **values, "back": "/"})
                return cls(problem, address, act.title)
        for command, page in _WHERE.items():
            if problem.command.startswith(f"segrelay {command}") and page != "/":
                return cls(problem, page, "Look")
        return cls(problem)


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """The counts of a part of all deliveries; `waiting_at` is where its waiting ones are listed."""

    name: str
    counts: Mapping[str, int]
    kind: str
    condition: Any = None

    @property
    def need(self) -> tuple[bool, bool, int, int]:
        """Return how much it needs a look: what stands still comes before what only waits."""
        is_ill = self.condition is not None and self.condition.stops
        counts = self.counts
        return is_ill, self.condition.state != "ok", counts["dead"], counts["waiting"]

    def address(self, count: str) -> str:
        """Return the page that lists what is counted; "" = none does."""
        by = {self.kind: self.name} if self.kind in {"trigger", "job"} else {}
        match count:
            case "dead":
                return address_of("/letters", by if self.kind == "trigger" else {})
            case "waiting":
                return address_of("/waiting", by)
            case "discarded":
                return address_of("/audit", {"text": "discard"})
            case "delivered" | "skipped":
                outcome = "" if count == "delivered" else count
                return address_of("/tap", {"outcome": outcome} | by)
        return ""


def _count_of(kind: str) -> Callable[[BalanceRow], int]:
    return lambda row: row.counts[kind]


_ROWS: Final = 50
"""The triggers that the first page shows, unless all are asked for."""
_ROW_COLUMNS: Final[Columns] = {
    "need": lambda row: row.need,
    "name": attrgetter("name"),
    "state": lambda row: row.condition.state,
    **{kind: _count_of(kind) for kind in KINDS},
}


def now(console: Console, asked: Asked) -> Page:
    """Show problems, the balance, the last hour, gates and workers."""
    judged = console.look.judged()
    standing = judged.standing
    sorting = Sorting.of(asked, _ROW_COLUMNS, "-need")
    shows_all = asked.get("all") == "1"
    by_trigger = sorting.apply(
        (
            BalanceRow(name, _six(one.counts), "trigger", one.condition)
            for name, one in standing.triggers.items()
        ),
        _ROW_COLUMNS,
    )
    values = {
        "standing": standing,
        "remedies": [Remedy.of(one) for one in judged.problems],
        "kinds": KINDS,
        "total": BalanceRow("", _six(standing.counts), "all"),
        "reasons": {kind: standing.counts.by_reason(kind) for kind in REASONED},
        "lanes": list(_by_lane(standing)),
        "by_destination": list(_by_destination(standing)),
        "by_trigger": by_trigger if shows_all else by_trigger[:_ROWS],
        "triggers": len(by_trigger),
        "shows_all": shows_all,
        "sorting": sorting,
        "plots": plots_of(standing, console.look.hour()),
        "started": console.started.latest()[:5],
    }
    return Page("now.html", "Now", values, live_seconds=console.live_seconds)


def _six(counts: Counts) -> dict[str, int]:
    return {kind: counts.of(kind) for kind in KINDS}


def _by_lane(standing: Standing) -> Iterator[BalanceRow]:
    lanes: dict[str, dict[str, int]] = {}
    for one in standing.triggers.values():
        for lane, counts in one.by_lane.items():
            row = lanes.setdefault(lane, dict.fromkeys(KINDS, 0))
            for kind in OUTCOMES:
                row[kind] += counts.of(kind)
        for lane, wait in one.waits.items():
            lanes.setdefault(lane, dict.fromkeys(KINDS, 0))["waiting"] += wait.deliveries
    for lane, row in lanes.items():
        yield BalanceRow(lane, row, "lane")


def _by_destination(standing: Standing) -> Iterator[BalanceRow]:
    for name, destination in standing.destinations.items():
        row = dict.fromkeys(KINDS, 0)
        for one in standing.triggers.values():
            if one.destination == name:
                for kind, count in _six(one.counts).items():
                    row[kind] += count
        yield BalanceRow(name, row, "destination", destination.condition)


_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class TapLine:
    """One outcome of the newest, about a person who stands there as a digest."""

    partition: PartitionKeys
    line: HistoryLine


def tap(console: Console, asked: Asked) -> Page:
    """Show the newest outcomes that the history of `why` holds: skips, retries, deaths."""
    lines = [TapLine(*one) for one in console.look.history()]
    filters = {name: asked.get(name) for name in ("outcome", "trigger", "text")}
    found = [one for one in lines if _is_wanted(one.line, filters)]
    values = {"lines": found[:_SHOWN], "filters": filters, "outcomes": _outcomes(lines)}
    return Page("tap.html", "Tap", values, live_seconds=console.live_seconds)


def _is_wanted(one: HistoryLine, filters: Mapping[str, str]) -> bool:
    text = filters["text"].casefold()
    return (
        one.outcome.startswith(filters["outcome"])
        and filters["trigger"] in ("", one.trigger)
        and (not text or any(text in each.casefold() for each in (one.audience, one.remark)))
    )


def _outcomes(lines: Iterable[TapLine]) -> list[str]:
    return sorted({one.line.outcome.partition("|")[0] for one in lines})


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
    chosen = options.chosen(iter(console.look.acts()), now_ms(console.look.client))
    sorting = Sorting.of(asked, _ACTS, "-at")
    number = asked.number("page", 1, MOST_ACTS // _SHOWN)
    text = filters["text"].casefold()
    acts = sorting.apply((act for act in chosen if not text or _has_text(act, text)), _ACTS)
    values = {
        "acts": acts[_SHOWN * (number - 1) : _SHOWN * number],
        "count": len(acts),
        "page": number,
        "has_more": len(acts) > _SHOWN * number,
        "sorting": sorting,
        "filters": filters,
        "started": console.started.latest(),
    }
    return Page("audit.html", "Audit", values)


def _has_text(act: Act, text: str) -> bool:
    found = (act.what, act.subject, act.reason, *act.arguments.values())
    return any(text in each.casefold() for each in found)
