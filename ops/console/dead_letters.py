"""The pages of dead letters: their causes, a list, and one letter with what a replay would send."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, Final, NamedTuple

from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    note_reveal,
    own_address,
    pretty,
)
from segrelay.ops.console.look import MOST_READ, Look
from segrelay.ops.dead_letters.commands import DeadLetterOptions, candidate_of, failed_at
from segrelay.ops.dead_letters.reading import (
    Cause,
    StoredDeadLetter,
    dead_letter_at,
    digest_of,
    matches,
    walk_deaths,
)
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import Filter
from segrelay.ops.terminal.console import json_or_text
from segrelay.worker.checks.preview import Previewed, preview
from segrelay.worker.contract.printable import cut, hidden
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import location_in, normalise_message
from segrelay.worker.errors import UsageWrong

_CURSOR: Final = re.compile(r"\d{1,15}\.\S{1,300}")
FILTERS: Final = ("trigger", "audience", "reason", "text", "since", "until", "job", "destination")


def dead_letters(console: Console, asked: Asked) -> Page:
    """Show the causes and the letters that the filters choose."""
    look = console.look
    causes = list(look.causes())
    chosen = list(asked.query.get("cause", ()))
    filters = {name: asked.get(name) for name in FILTERS}
    is_filtered = bool(chosen or any(filters.values()))
    wanted = DeadLetterOptions(cause=chosen, **filters).chosen(look.client, look.settings, None)
    behind = asked.get("behind") if _CURSOR.fullmatch(asked.get("behind")) else ""
    found, further = _look_through(look, wanted, behind)
    if is_filtered:
        counts = Counter(one["cause"] for one in found)
        causes = [replace(one, count=n) for one in causes if (n := counts[one.cause])]
    fields = {"cause": chosen, **filters}
    values = {
        "causes": [cause_row(look, one) for one in causes],
        "kept": sum(one.count for one in look.causes()),
        "is_filtered": is_filtered,
        "rows": [one | {"message": normalise_message(one["message"])} for one in found],
        "further": further,
        "behind": behind,
        "triggers": sorted(look.standing().triggers),
        "reasons": sorted(Death),
        "fields": fields,
        "here": address_of("/letters", fields | {"behind": behind}),
    }
    return Page("letters.html", "Dead letters", values)


_LETTERS: Final = 200
"""The letters that a page shows."""
_MOST_LOOKS: Final = 200
"""The most looks in vain of a page, each at up to 100 letters of each partition."""


def _look_through(look: Look, wanted: Filter, behind: str) -> tuple[list[StoredDeadLetter], str]:
    """Return the newest letters that match, and the cursor behind which there may be more.

    It is "" where there are no more.
    """
    partitions = all_partitions(look.client, look.settings)
    found: list[StoredDeadLetter] = []
    deaths, looks = walk_deaths(look.client, partitions, wanted, behind), 0
    for death, text in islice(deaths, MOST_READ):
        one = None if text is None else dead_letter_at(death.partition, text)
        looks += one is None
        if looks == _MOST_LOOKS:
            return found, death.cursor
        if one and matches(one, wanted):
            if len(found) == _LETTERS:
                return found, behind
            found.append(one)
        behind = death.cursor
    return found, behind if next(deaths, None) else ""


def cause_row(look: Look, one: Cause) -> dict[str, Any]:
    """Return a cause with its message and the line of the template that failed."""
    location = failed_at(look.settings, one.trigger, one.message)
    message = one.message.removeprefix(f"{location_in(one.message)}: ")
    return {"cause": one, "location": location, "message": message}


def dead_letter(console: Console, asked: Asked) -> Page:
    """Show one letter: why it died, what was sent and answered, and what a replay would send."""
    look = console.look
    store = look.dead_letters()
    found = next(store.find(Filter.of_id(asked.path["id"])), None)
    if found is None:
        raise UsageWrong(
            "There is no such letter: it was replayed or discarded meanwhile, or its address is"
            " wrong."
        )
    reveals = asked.is_post
    if reveals:
        note_reveal(console, asked, f"letter {found['id']}")
    document = store.document(found, reveal=reveals)
    replay = store.replay(Filter.of_id(found["id"]))
    tries = reveals or asked.get("try") == "1"
    again = _again(look, found) if tries else None
    values = {
        "letter": document,
        "back": own_address(asked.get("back") or "/letters"),
        "digest": digest_of(found),
        "is_revealed": reveals,
        "obstacles": [store.why_left_out.get(why, why) for why in replay.left_out],
        "tries": tries,
        "again": again,
        "bodies": beside(
            json_or_text(found["body"]) or None, again.sent if again else None, reveals=reveals
        ),
        "source": list(_source(look, document["location"], found)),
    }
    return Page("letter.html", f"Letter {found['id']}", values)


def _again(look: Look, found: StoredDeadLetter) -> Previewed | None:
    """Return what a replay would send with today's template; None if the entry can't be read."""
    candidate = candidate_of(found)
    if candidate is None or found["trigger"] not in look.settings.triggers:
        return None
    at_us = 1_000 * now_ms(look.client)
    return next(iter(preview([candidate], look.settings, now_us=at_us)), None)


class MarkedLine(NamedTuple):
    """A line of a body, and whether the other body has another one there."""

    text: str
    differs: bool


Bodies = tuple[list[MarkedLine], list[MarkedLine]]
_MOST_LINES: Final = 1_000


def beside(before: Any, after: Any, *, reveals: bool) -> Bodies:
    """Return the lines of two bodies, marked where they differ.

    They are compared as they are and shown masked, so that also a masked value is marked.
    """
    real = _lines(cut(before)), _lines(cut(after))
    shown = real if reveals else (_lines(hidden(before)), _lines(hidden(after)))
    both = before is not None and after is not None
    same: list[set[int]] = [set(), set()]
    for old, new, size in SequenceMatcher(None, *real, autojunk=False).get_matching_blocks():
        same[0].update(range(old, old + size))
        same[1].update(range(new, new + size))
    first, second = (
        [MarkedLine(text, both and number not in found) for number, text in enumerate(lines)]
        for lines, found in zip(shown, same, strict=True)
    )
    return first, second


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    return (value if isinstance(value, str) else pretty(value)).splitlines()[:_MOST_LINES]


_AROUND: Final = 3


def _source(look: Look, location: str, found: StoredDeadLetter) -> Iterator[tuple[int, str, bool]]:
    """Yield the lines of the template around the one that failed: number, text, is that one."""
    name, _, line = location.partition(":")
    if not line.split(":")[0].isdigit() or found["trigger"] not in look.settings.triggers:
        return
    lines = (look.template_text(name) or "").splitlines()
    at = int(line.split(":")[0])
    for number in range(max(1, at - _AROUND), min(len(lines), at + _AROUND) + 1):
        yield number, lines[number - 1], number == at
