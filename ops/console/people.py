"""The pages about one person, and about dead letters; addresses name a person by a digest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import groupby, islice
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
from segrelay.ops.dead_letters.commands import (
    DeadLetterOptions,
    DeadLetters,
    candidate_of,
    failed_at,
)
from segrelay.ops.dead_letters.reading import (
    Cause,
    StoredDeadLetter,
    dead_letter_at,
    digest_of,
    matches,
    walk_deaths,
)
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import KnownPerson, is_digest
from segrelay.ops.state.waiting import Filter
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.moments import shown_us
from segrelay.ops.verify import HeldPerson, verify_person
from segrelay.ops.why import (
    ENDS,
    MOST_ENTRIES,
    KnownProfile,
    Moment,
    explain_person,
    find_profile,
    quarantined,
    tells_less,
    timeline_of,
    verdict,
)
from segrelay.producer.publishing.quarantine import QuarantineRecord
from segrelay.worker.checks.preview import Previewed, preview
from segrelay.worker.contract.printable import cut, hidden
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import location_in, normalise_message
from segrelay.worker.errors import UsageWrong

_OVER: Final = frozenset({"delivered", "skipped"})
_STANDS: Final = ENDS | {"waits", "orphaned", "discarded", "tried"}
_LONGEST: Final = 500


def people(console: Console, asked: Asked) -> Page | str:
    """Show the search; or find the person who was typed, and lead to their page.

    What was typed comes in the body of a POST, so that no address or log has it.
    """
    text = asked.given("person").strip()[:_LONGEST]
    if not asked.is_post or not text:
        return Page("people.html", "A person", {"wrong": ""})
    look = console.look
    wrong = "Nothing is known of this person: no delivery, nothing waiting, no letter."
    try:
        known = find_profile(look.client, look.settings, text, most=20_000)
        known.quarantined = list(_records_about(look, known.person.digest))
        if not (known.is_nothing and known.is_whole):
            return address_of_person(known.person.digest.hex(), known.person.partition)
    except UsageWrong as error:
        wrong = error.message
    record = next(_records_about(look, b"", text), None) if asked.person.reveals else None
    if record:
        return f"/quarantine/{record.id}"
    return Page("people.html", "A person", {"wrong": wrong}, 404)


def _records_about(look: Look, digest: bytes, text: str = "") -> Iterator[QuarantineRecord]:
    newest = sorted(look.records().found, key=lambda record: -record.last_seen_ms)[:MOST_READ]
    return quarantined(look.client, newest, look.settings.delivery.identity, digest, text)


def address_of_person(digest: str, partition: int) -> str:
    """Return the address of a person's page."""
    return address_of(f"/people/{digest}", {"partition": str(partition)})


def person(console: Console, asked: Asked) -> Page:
    """Show what happened to one person; after a POST also what Insider holds of them."""
    look = console.look
    digest, partition = asked.path["digest"], asked.get("partition")
    if not (is_digest(digest) and partition.isascii() and partition.isdigit()):
        raise UsageWrong("This is no person's address: search for the person.")
    named = KnownPerson(bytes.fromhex(digest), int(partition))
    most = MOST_ENTRIES if asked.get("all") == "1" else MOST_READ
    known = explain_person(look.client, look.settings, named, most, look.standing())
    known.quarantined = list(_records_about(look, named.digest))
    known.requests = [one for one in look.requests() if named.digest in one.people]
    reveals = bool(asked.given("reason").strip())
    if reveals:
        note_reveal(console, asked, f"person {digest}")
    held: Mapping[str, HeldPerson | None] | None = None
    if asked.is_post:
        if not asked.person.name:
            raise UsageWrong("Insider is asked only for people who have signed in.")
        held = verify_person(look.client, look.settings, named.digest, named.partition)
    timeline = sorted(timeline_of(known), key=lambda moment: -moment.at_ms)
    values = {
        "digest": digest,
        "partition": partition,
        "is_nothing": known.is_nothing,
        "is_whole": known.is_whole,
        "most_read": MOST_READ,
        "unread_records": max(0, len(look.records().found) - MOST_READ),
        "answers": list(answers_of(known, timeline)),
        "timeline": fold_tries(timeline),
        "verdict": "" if known.is_nothing else verdict(known, timeline),
        "is_revealed": reveals,
        "held": None if held is None else [(n, _shown(h, reveals)) for n, h in held.items()],
        "shows_all": asked.get("all") == "1",
    }
    return Page("person.html", f"Person {digest[:8]}", values)


def _shown(held: HeldPerson | None, reveals: bool) -> HeldPerson | None:  # noqa: FBT001
    """Mask the values, except lists of audiences, which the ledger has too."""
    if held is None or held.attributes is None or reveals:
        return held
    masked = {
        name: value if name in held.lists else hidden(value)
        for name, value in held.attributes.items()
    }
    return held._replace(attributes=masked)


def answers_of(
    known: KnownProfile, timeline: Sequence[Moment]
) -> Iterator[tuple[Moment, str, int]]:
    """Yield how a person stands in each audience at each destination.

    Yields what became of the newest event (of several triggers, what is not over comes first), that
    event's own time ("" = not known), and the time (ms) when an event about this audience was last
    delivered (0 = not known).
    """
    ledger = [
        Moment(0, what, destination, line.trigger, line.audience, line.direction.value, at_us)
        for destination, lines in known.ledger.items()
        for line in lines
        for what, at_us in (("delivered", line.delivered_us), ("tried", line.tried_us))
        if at_us
    ]
    moments = (*timeline, *ledger)
    ranked = sorted(moments, key=lambda m: (m.event_us, not tells_less(m), m.at_ms))
    newest = {(m.audience, m.destination, m.trigger): m for m in ranked if m.what in _STANDS}
    for pair, same in groupby(sorted(newest.items()), lambda item: item[0][:2]):
        last = max((m for _, m in same), key=lambda m: (m.event_us, m.what not in _OVER, m.at_ms))
        own = (m for m in moments if (m.what, m.audience, m.destination) == ("delivered", *pair))
        delivered_ms = max((m.at_ms for m in own), default=0)
        yield last, shown_us(last.event_us) if last.event_us else "", delivered_ms


def fold_tries(timeline: Sequence[Moment]) -> list[tuple[Moment, int, int]]:
    """Return the lines of a timeline, with the tries of one delivery as one line.

    Each has the newest moment, the number of moments, and the time of the oldest (ms).
    """
    same: defaultdict[Moment, list[Moment]] = defaultdict(list)
    for one in timeline:
        same[one._replace(at_ms=0, detail="") if one.what == "retry" else one].append(one)
    return [(own[0], len(own), own[-1].at_ms) for own in same.values()]


_CURSOR: Final = re.compile(r"\d{1,15}\.\S{1,300}")
FILTERS: Final = ("trigger", "audience", "reason", "text", "since", "until", "job", "destination")


def dead_letters(console: Console, asked: Asked) -> Page:
    """Show the causes and the dead letters that the filters choose."""
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
"""The dead letters that a page shows."""
_MOST_LOOKS: Final = 200
"""The most looks in vain of a page, each at up to 100 dead letters of each partition."""


def _look_through(look: Look, wanted: Filter, behind: str) -> tuple[list[StoredDeadLetter], str]:
    """Return the newest dead letters that match, and the cursor behind which there may be more.

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
    """Show a dead letter: its cause, the request, the answer, and the result of a replay."""
    look = console.look
    store = DeadLetters(look.client, look.settings)
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
    }
    return Page("letter.html", f"Letter {found['id']}", values)


def _again(look: Look, found: StoredDeadLetter) -> Previewed | None:
    """Render a dead letter with today's template; None if the entry can't be read."""
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
