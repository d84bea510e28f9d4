"""The page that asks before an act, the start of the act, and the page of its progress.

The page shows the command that does the same. What can't be undone says how many it will be, and
asks for that number, which the command gets as --at-most: it decides once it has counted.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from segrelay.ops.console.acts import ConsoleAct, StartedCommand, Values, act_named, command_line
from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    own_address,
)
from segrelay.ops.console.look import MOST_SCANNED, Look, scan
from segrelay.ops.console.people import cause_row
from segrelay.ops.dead_letters.commands import DeadLetterOptions
from segrelay.ops.kept import KeptOptions, Waiting, WaitingOptions
from segrelay.ops.state.opened import LONGEST_REASON
from segrelay.ops.state.waiting import Filter
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.errors import UsageWrong

_LIVE_SECONDS: Final = 1
_MOST_CAUSES: Final = 5
"""The causes that the page of an act shows in words."""
_DRIFT: Final = 0.1
_WAIT: Final = "waiting deliveries"


@dataclass(frozen=True, slots=True)
class Reach:
    """The number of things that an act takes.

    Args:
        is_exact: False if there are more than a page may count.
        causes: The number of dead letters for each cause; empty for acts on anything else.
        drifts: True if the number changes all the time, as of what waits.
    """

    count: int
    noun: str
    is_exact: bool = True
    drifts: bool = False
    causes: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Return the number and the noun."""
        return f"{'' if self.is_exact else 'more than '}{self.count:,} {self.noun}"


def ask(console: Console, asked: Asked) -> Page | str:
    """Show the page of an act with its form and its dry run; a POST starts the act."""
    source = asked.form if asked.is_post else asked.query
    act = act_named((source.get("act") or [""])[0])
    values = act.values(source)
    back = own_address((source.get("back") or ["/"])[0])
    if "chosen" in source and "ids" not in values:
        raise UsageWrong("Nothing is chosen: tick what it is for.")
    if asked.is_post:
        return _start(console, asked, act, values, back)
    reach = _reach(console.look, act, values)
    tried = console.started.find(asked.get("tried"))
    if tried and (tried.act != act or tried.values != values or not tried.is_over):
        tried = None
    known = _known_reach(reach, tried)
    values_of_page = {
        "act": act,
        "fields": [(name, text) for name, texts in values.items() for text in texts],
        "command": command_line(act, values, known.count if known and known.is_exact else None),
        "reach": known,
        "causes": list(_causes(console.look, values, reach)) if reach and reach.causes else [],
        "causes_of": reach.count if reach and not reach.is_exact else 0,
        "back": back,
        "once": secrets.token_urlsafe(12),
        "tried": tried,
        "longest_reason": LONGEST_REASON,
        "may_try": act.has_dry_run and bool(asked.person.name),
    }
    return Page("act.html", act.title, values_of_page)


def _start(console: Console, asked: Asked, act: ConsoleAct, values: Values, back: str) -> str:
    is_dry_run = asked.given("dry_run") == "1"
    if not asked.person.acts and not is_dry_run:
        raise UsageWrong("You may look, but not act: the role operator is needed.")
    at_most = None
    if act.is_destructive and not is_dry_run:
        tried = console.started.find(asked.given("tried"))
        known = tried if tried and tried.act == act and tried.values == values else None
        reach = _known_reach(_reach(console.look, act, values), known)
        at_most = _number(asked.given("count"), reach)
    started = console.started.start(
        asked.person,
        act,
        values,
        reason=asked.given("why")[:LONGEST_REASON],
        once=asked.given("once"),
        is_dry_run=is_dry_run,
        at_most=at_most,
    )
    return address_of(f"/acts/{started.key}", {"back": back})


def _number(typed: str, reach: Reach | None) -> int | None:
    """Return the number that a person typed, if it is about how many it will be now.

    What waits changes all the time, so there a tenth more or less is let through.

    Raises:
        UsageWrong: It is another number.
    """
    if reach is None:
        return None
    if not reach.is_exact:
        raise UsageWrong(
            f"It would be {reach.words}: try it with a dry run first, which counts them."
        )
    text = typed.replace(",", "").strip()
    number = int(text) if text.isascii() and text.isdigit() else -1
    if abs(number - reach.count) > (number * _DRIFT if reach.drifts else 0) or number < 0:
        raise UsageWrong(f"It would be {reach.words}: type that number. Nothing was done.")
    return number


def _known_reach(reach: Reach | None, tried: StartedCommand | None) -> Reach | None:
    """Return the number that a dry run has counted where a page can't count so far."""
    if reach is None or reach.is_exact or tried is None or not isinstance(tried.document, dict):
        return reach
    counts = [n for name, n in tried.document.items() if name.startswith("would_be_")]
    return replace(reach, count=sum(counts), is_exact=True) if counts else reach


def _reach(look: Look, act: ConsoleAct, values: Values) -> Reach | None:
    """Return how many things an act takes; None = it takes no number of things."""
    counter = _COUNTERS.get(act.command)
    return counter(look, values) if counter else None


def _chosen(look: Look, kind: type[KeptOptions | WaitingOptions], values: Values) -> Filter:
    """Return the filter that the fields of a form mean, read as the command reads its options."""
    given: dict[str, Any] = {
        name: list(texts) if name in {"ids", "cause"} else texts[0]
        for name, texts in values.items()
    }
    ids = given.pop("ids", None)
    return kind(**given).chosen(look.client, look.settings, ids)


def _dead_letters(look: Look, values: Values) -> Reach:
    if values.keys() <= {"cause"}:
        causes = values.get("cause", ())
        counts = {
            one.cause: one.count for one in look.causes() if not causes or one.cause in causes
        }
        return Reach(sum(counts.values()), "letters", causes=counts)
    letters = look.dead_letters().find(_chosen(look, DeadLetterOptions, values))
    found = scan(one["cause"] for one in letters)  # a letter itself may be large
    return Reach(len(found.found), "letters", found.is_whole, causes=Counter(found.found))


def _causes(look: Look, values: Values, reach: Reach) -> Iterator[dict[str, Any]]:
    """Yield the first causes of the letters that an act takes, each with one of its letters."""
    wanted = _chosen(look, DeadLetterOptions, values)
    known = [one for one in look.causes() if reach.causes.get(one.cause)]
    for one in known[:_MOST_CAUSES]:
        alike = look.dead_letters().find(replace(wanted, causes=frozenset({one.cause})))
        sample = next((letter for letter in alike if letter["cause"] == one.cause), None)
        counted = replace(one, count=reach.causes[one.cause])
        yield cause_row(look, counted) | {"sample": sample}


def _records(look: Look, values: Values) -> Reach:
    if not values:
        return Reach(look.standing().quarantined, "records")
    found = scan(look.quarantine().find(_chosen(look, KeptOptions, values)))
    return Reach(len(found.found), "records", found.is_whole)


def _waiting(look: Look, values: Values) -> Reach:
    work = Waiting(look.client, look.settings)
    wanted = _chosen(look, WaitingOptions, values)
    if wanted.audience and sum(one.length for one in work.streams(wanted)) > MOST_SCANNED:
        return Reach(0, _WAIT, is_exact=False)
    return Reach(work.discard(wanted).count, _WAIT, drifts=True)


def _of_job(look: Look, values: Values) -> Reach:
    one = look.standing().jobs.get(values["job"][0])
    return Reach(one.counts.waiting if one else 0, _WAIT, drifts=True)


def _leavers(look: Look, values: Values) -> Reach | None:
    name = values["sync"][0]
    if name not in look.settings.sync:
        return None
    waiting, gone = SyncStore(look.client, name, look.settings.redis).peek().doubted or (0, 0)
    if values["run"][0] != str(waiting):
        raise UsageWrong("Another run of this sync waits by now, or none: look at it anew.")
    return Reach(gone, "members")


_COUNTERS: Final[Mapping[str, Callable[[Look, Values], Reach | None]]] = {
    "dlq replay": _dead_letters,
    "dlq discard": _dead_letters,
    "quarantine replay": _records,
    "quarantine discard": _records,
    "discard": _waiting,
    "backfill abort": _of_job,
    "sync confirm": _leavers,
}


def started(console: Console, asked: Asked) -> Page:
    """Show the output and the end of a command that the console started."""
    found = console.started.find(asked.path["key"])
    if found is None:
        raise UsageWrong(
            "This console does not know how that command stands: only the one that started it does,"
            " for its last commands and until it is started again. The audit has what was done."
        )
    back = own_address(asked.get("back") or "/")
    values: dict[str, Any] = {
        "started": found,
        "query": {"act": found.act.command, "tried": found.key, "back": back, **found.values},
        "back": back,
        "result": found.document if isinstance(found.document, dict) else {},
    }
    title = "Dry run" if found.is_dry_run else found.act.title
    return Page("started.html", title, values, live_seconds=0 if found.is_over else _LIVE_SECONDS)
