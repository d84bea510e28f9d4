"""The pages about one person, who stands in addresses and titles as a digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from segrelay.ops.console.app import Asked, Console, Page, Redirect, address_of, note_reveal
from segrelay.ops.console.look import MOST_READ, Look
from segrelay.ops.state.person import KnownPerson, is_digest
from segrelay.ops.state.waiting import WaitingEntry
from segrelay.ops.templates.events import candidate_of_entry
from segrelay.ops.verify import HeldPerson, verify_person
from segrelay.ops.why.command import ledger_of, timeline_of, verdict
from segrelay.ops.why.story import (
    MOST_ENTRIES,
    KnownProfile,
    Moment,
    explain_person,
    find_profile,
    quarantined,
)
from segrelay.producer.publishing.quarantine import QuarantineRecord
from segrelay.worker.checks.preview import Candidate, Previewed, preview
from segrelay.worker.contract.masking import hidden
from segrelay.worker.contract.receivers import REQUEST_ID, read_requests
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.triggers import DESTINATION, TRIGGER
from segrelay.worker.errors import PayloadRefused, UsageWrong

_MOST_SEARCHED: Final = 20_000
_TRIED: Final = 5
_PAUSES: Final = frozenset({"pause", "resume"})
_LONGEST: Final = 500


def people(console: Console, asked: Asked) -> Page | Redirect:
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
    by_fields = asked.person.reveals
    try:
        known = find_profile(look.client, look.settings, text, _MOST_SEARCHED, by_fields=by_fields)
        known.quarantined = list(_records_about(look, known.person.digest))
        if not (known.is_nothing and known.is_whole):
            return Redirect(address_of_person(known.person.digest.hex(), known.person.partition))
    except UsageWrong as error:
        wrong = error.message
    record = next(_records_about(look, b"", text), None) if by_fields else None
    if record:
        return Redirect(f"/quarantine/{record.id}")
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
    """Show the story of one person; what templates would make of it only if it is asked for."""
    look = console.look
    known = _known(look, asked)
    known.quarantined = list(_records_about(look, known.person.digest))
    known.requests = [one for one in look.requests() if known.person.digest in one.people]
    digest, partition = known.person.digest, known.person.partition
    does = asked.given("do") if asked.is_post else ""
    reveals = does == "reveal" or (does == "verify" and bool(asked.given("reason").strip()))
    if reveals:
        note_reveal(console, asked, f"person {digest.hex()}")
    held: Mapping[str, HeldPerson | None] | None = None
    if does == "verify":
        if not asked.person.name:
            raise UsageWrong("Insider is asked only for people who have signed in.")
        held = verify_person(look.client, look.settings, digest, partition)
    timeline = sorted(
        [*timeline_of(known), *_pauses(look, known)], key=lambda moment: -moment.at_ms
    )
    tries = reveals or asked.get("try") == "1"
    values = {
        "digest": digest.hex(),
        "partition": partition,
        "is_nothing": known.is_nothing,
        "is_whole": known.is_whole,
        "most_read": MOST_READ,
        "ledger": list(ledger_of(known)),
        "timeline": [(moment, _dead_letter_in(moment)) for moment in timeline],
        "tries": tries,
        "tried": list(_tried(look, known.waiting[:_TRIED], reveals=reveals)) if tries else [],
        "waiting": len(known.waiting),
        "verdict": "" if known.is_nothing else verdict(known, timeline),
        "is_revealed": reveals,
        "held": None if held is None else [(n, _shown(h, reveals)) for n, h in held.items()],
        "shows_all": asked.get("all") == "1",
    }
    return Page("person.html", f"Person {digest.hex()[:8]}", values)


def _shown(held: HeldPerson | None, reveals: bool) -> HeldPerson | None:  # noqa: FBT001
    """Mask the values, except lists of audiences, which the ledger has too."""
    if held is None or held.attributes is None or reveals:
        return held
    masked = {
        name: value if name in held.lists else hidden(value)
        for name, value in held.attributes.items()
    }
    return replace(held, attributes=masked)


def _known(look: Look, asked: Asked) -> KnownProfile:
    digest, partition = asked.path["digest"], asked.get("partition")
    if not (is_digest(digest) and partition.isascii() and partition.isdigit()):
        raise UsageWrong("This is no person's address: search for the person.")
    most = MOST_ENTRIES if asked.get("all") == "1" else MOST_READ
    found = KnownPerson(bytes.fromhex(digest), int(partition))
    return explain_person(look.client, look.settings, found, most, look.standing())


def _dead_letter_in(moment: Moment) -> str:
    """Return the id of the letter that a line is about; "" = it is about none."""
    return moment.detail.partition(":")[0] if moment.what == "dead letter" else ""


def _pauses(look: Look, known: KnownProfile) -> Iterator[Moment]:
    """Yield what was paused and resumed since the first thing that is known of a person."""
    moments = timeline_of(known)
    concerned = {one.destination for one in moments} | {one.trigger for one in moments}
    since_ms = min((one.at_ms for one in moments), default=0)
    for act in read_acts(look.client):
        if act.at_ms < since_ms:
            return
        kind, _, name = act.subject.partition(" ")
        if act.what in _PAUSES and name in concerned:
            yield Moment(
                act.at_ms,
                f"{act.what}d",
                name if kind == DESTINATION else "",
                name if kind == TRIGGER else "",
                detail=f"by {act.by}: {act.reason}".rstrip(": "),
            )


def _tried(
    look: Look, entries: Sequence[WaitingEntry], *, reveals: bool
) -> Iterator[tuple[WaitingEntry, Previewed, Any]]:
    """Yield waiting deliveries, each with its preview and the body that would be sent."""
    candidates = [
        (entry, candidate)
        for entry in entries
        if entry.stream.trigger in look.settings.triggers
        and (candidate := _candidate(entry)) is not None
    ]
    at_us = 1_000 * now_ms(look.client)
    found = preview([one for _, one in candidates], look.settings, now_us=at_us)
    for (entry, _), one in zip(candidates, found, strict=True):
        yield entry, one, one.sent if reveals else hidden(one.sent)


def _candidate(entry: WaitingEntry) -> Candidate | None:
    try:
        return candidate_of_entry(entry)
    except (PayloadRefused, orjson.JSONDecodeError):
        return None
