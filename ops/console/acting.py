"""The page that asks before an act, the start of the act, and the page of its progress.

The page shows the command that does the same. What can't be undone says how many it will be, and
asks for that number, which the command gets as --at-most: the command alone decides, once it has
counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from segrelay.ops.console.acts import ConsoleAct, Values, act_named, command_line
from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    own_address,
)
from segrelay.ops.console.look import MOST_SCANNED, Look, scan
from segrelay.ops.dead_letters.commands import DeadLetterOptions, DeadLetters
from segrelay.ops.kept import Kept, KeptOptions, QuarantinedRecords, Waiting
from segrelay.ops.state.opened import LONGEST_REASON
from segrelay.ops.state.waiting import Filter
from segrelay.worker.errors import UsageWrong

_LIVE_SECONDS: Final = 1
_KEPT: Final[Mapping[str, tuple[type[Kept[Any]], type[KeptOptions]]]] = {
    "dlq": (DeadLetters, DeadLetterOptions),
    "quarantine": (QuarantinedRecords, KeptOptions),
}


@dataclass(frozen=True, slots=True)
class Reach:
    """The number of things that an act takes.

    Args:
        is_exact: False if there are more than a page may count.
    """

    count: int
    noun: str
    is_exact: bool = True

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
    tried = console.started.find(asked.get("tried"))
    if tried and (tried.act != act or tried.values != values or not tried.is_over):
        tried = None
    reach = _reach(console.look, act, values)
    values_of_page = {
        "act": act,
        "values": values,
        "fields": [(name, text) for name, texts in values.items() for text in texts],
        "command": command_line(act, values, reach.count if reach and reach.is_exact else None),
        "reach": reach,
        "back": back,
        "once": secrets.token_urlsafe(12),
        "tried": tried,
        "longest_reason": LONGEST_REASON,
        "may_try": act.has_dry_run and bool(asked.person.name),
    }
    return Page("act.html", act.title, values_of_page)


def _start(console: Console, asked: Asked, act: ConsoleAct, values: Values, back: str) -> str:
    typed = asked.given("count").replace(",", "").strip()
    started = console.started.start(
        asked.person,
        act,
        values,
        reason=asked.given("why")[:LONGEST_REASON],
        once=asked.given("once"),
        is_dry_run=asked.given("dry_run") == "1",
        at_most=int(typed) if typed.isascii() and typed.isdigit() else None,
    )
    return address_of(f"/acts/{started.key}", {"back": back})


def _reach(look: Look, act: ConsoleAct, values: Values) -> Reach | None:
    """Return how many things an act takes; None = it takes no number of things."""
    given: dict[str, Any] = {
        name: list(texts) if name in {"ids", "cause"} else texts[0]
        for name, texts in values.items()
    }
    match act.command.partition(" ")[0]:
        case "dlq" | "quarantine" as kind:
            store, options = _KEPT[kind]
            ids = given.pop("ids", None)
            wanted = options(**given).chosen(look.client, look.settings, ids)
            found = scan(1 for _ in store(look.client, look.settings).find(wanted))
            return Reach(len(found.found), store.nouns[1], found.is_whole)
        case "discard":
            return _waiting(look, Filter(**given))
        case "backfill" if act.is_destructive:
            return _waiting(look, Filter(given["job"]))
        case "sync" if act.is_destructive and given["sync"] in look.standing().syncs:
            _, gone = look.standing().syncs[given["sync"]].doubted or (0, 0)
            return Reach(gone, "members")
    return None


def _waiting(look: Look, wanted: Filter) -> Reach:
    work = Waiting(look.client, look.settings)
    if wanted.audience and sum(one.length for one in work.streams(wanted)) > MOST_SCANNED:
        return Reach(MOST_SCANNED, work.nouns[1], is_exact=False)
    return Reach(work.discard(wanted).count, work.nouns[1])


def started(console: Console, asked: Asked) -> Page:
    """Show the output and the end of a command that the console started."""
    found = console.started.find(asked.path["key"])
    if found is None:
        raise UsageWrong(
            "This console does not know how that command stands: only the one that started it does,"
            " for its last commands and until it is started again. The audit has what was done."
        )
    back = own_address(asked.get("back") or "/")
    is_over, result = found.is_over, found.document or {}  # whole if it was over before
    query = {"act": found.act.command, "tried": found.key, "back": back, **found.values}
    values = {"started": found, "is_over": is_over, "query": query, "back": back, "result": result}
    title = "Dry run" if found.is_dry_run else found.act.title
    return Page("started.html", title, values, live_seconds=0 if is_over else _LIVE_SECONDS)
