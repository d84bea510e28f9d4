"""The pages about one person, who stands in addresses and titles as a digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from segrelay.ops.console.app import Asked, Console, Page, address_of, note_reveal
from segrelay.ops.console.look import MOST_READ, Look
from segrelay.ops.state.person import KnownPerson, is_digest
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
from segrelay.worker.contract.printable import hidden
from segrelay.worker.contract.processes import REQUEST_ID, read_requests
from segrelay.worker.errors import UsageWrong

_MOST_SEARCHED: Final = 20_000
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
    if REQUEST_ID.fullmatch(text):
        return _request(look, text)
    wrong = "Nothing is known of this person: no delivery, nothing waiting, no letter."
    try:
        known = find_profile(look.client, look.settings, text, _MOST_SEARCHED)
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
    identity = look.settings.delivery.identity
    return quarantined(look.client, look.records().found, identity, digest, text)


def _request(look: Look, name: str) -> Page:
    found = next((one for one in read_requests(look.client) if one.name == name), None)
    if found is None:
        wrong = "Nothing is known of this webhook request: only the newest are kept."
        return Page("people.html", "A person", {"wrong": wrong}, 404)
    digests = [digest.hex() for digest in found.people]
    numbers = range(look.settings.redis.partitions)
    context = {"request": found, "digests": digests, "partitions": numbers}
    return Page("request.html", "A webhook request", context)


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
