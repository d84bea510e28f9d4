"""The pages Now, Tap and Audit: how everything stands, what goes through, and who did what."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
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
    Sorting,
    address_of,
)
from segrelay.ops.console.look import LINES_FRESH_SECONDS, Look
from segrelay.ops.console.plots import plots_of
from segrelay.ops.state.person import is_digest
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS, OUTCOMES, REASONED, Counts
from segrelay.ops.tap import TapOptions, detail_of
from segrelay.worker.contract.events import HistoryLine
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import MOST_ACTS, Act
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.taps import TapLook, TapWatch
from segrelay.worker.contract.taps import OUTCOMES as TAP_OUTCOMES
from segrelay.worker.contract.taps import TapKind
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
"""The triggers that a page shows."""
_MOST_PAGES: Final = 1_000
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
    number = asked.number("page", 1, _MOST_PAGES)
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
        "by_trigger": by_trigger[_ROWS * (number - 1) : _ROWS * number],
        "triggers": len(by_trigger),
        "page": number,
        "has_more": len(by_trigger) > _ROWS * number,
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
    """Show what goes through now, and what the history of `why` holds: skips, retries, deaths."""
    filters = {field.name: asked.get(field.name) for field in fields(TapOptions)}
    feed, problem = _feed(console.look, filters)
    records = feed.records if feed else ()
    lines = (TapLine(*one) for one in console.look.history())
    values = {
        "feed": feed,
        "records": [(one, " · ".join(detail_of(one))) for one in reversed(records)],
        "problem": problem,
        "lines": list(islice((one for one in lines if _is_wanted(one, filters)), _SHOWN)),
        "filters": filters,
        "whats": list(TapKind),
        "outcomes": TAP_OUTCOMES,
    }
    return Page("tap.html", "Tap", values, live_seconds=LINES_FRESH_SECONDS)


def _feed(look: Look, filters: Mapping[str, str]) -> tuple[TapLook | None, str]:
    """Return the newest records, or why there are none.

    All who look with the same filter share a watch, which lapses when they have gone: there is
    nothing to end.
    """
    if filters["person"] and not is_digest(filters["person"]):
        return None, "A person is a digest here: the page of a person shows it."
    try:
        wanted = TapOptions(**filters).chosen(look.client, look.settings)
        name = hashlib.blake2b(wanted.dumps(), digest_size=6).hexdigest()
        return TapWatch(look.client, wanted, f"console-{name}").newest(_SHOWN), ""
    except UsageWrong as error:
        return None, error.message


def _is_wanted(one: TapLine, filters: Mapping[str, str]) -> bool:
    line, text = one.line, filters["text"].casefold()
    return (
        line.outcome.startswith(filters["outcome"])
        and filters["what"] in {"", TapKind.OUTCOME}
        and filters["trigger"] in {"", line.trigger}
        and filters["audience"] in {"", line.audience}
        and filters["destination"] in {"", one.partition.destination}
        and filters["person"] in {"", line.digest}
        and (not text or any(text in each.casefold() for each in (line.audience, line.remark)))
    )


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
