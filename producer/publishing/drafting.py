"""Drafting: from payloads or events to the deliveries and quarantine records that they become.

A draft asks Redis for nothing but audiences. Whatever is raised about one payload or event is its
refusal and costs no other.

Matching: the triggers that want an event, and the fields that each of them gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from segrelay.producer.events.payloads import (
    SEGMENT_EVENTS,
    Payload,
    ReadingRules,
    Refused,
    RowForm,
    content_of,
    events_of,
    has_own_events,
    load,
    one_costs_one,
    payloads_in,
    payloads_of,
    refused,
)
from segrelay.producer.events.values import PROFILE_ID, dumps_exactly, identity_field, profile_key
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.publishing.published import (
    Draft,
    MemberChange,
    PartitionAddress,
    Portion,
    PublishOptions,
)
from segrelay.producer.publishing.writing import RoomMeter
from segrelay.worker.contract.events import Event, Header, header_of, pack_profile
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.accept import Entrant, NewDelivery
from segrelay.worker.contract.settings import ALL_AUDIENCES, Settings, Trigger
from segrelay.worker.contract.words import Direction, Refusal
from segrelay.worker.errors import PayloadRefused

LARGEST_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""The largest JSON text of a profile, in bytes: a body for Insider has at most 5,000,000."""


class TriggerIndex:
    """The triggers, found by audience and direction.

    Args:
        slug_of: From an audience's id to its slug, "" if it is not known; triggers may name ids.
    """

    def __init__(self, triggers: Iterable[Trigger], slug_of: Callable[[str], str]) -> None:
        self._triggers = tuple(triggers)
        self._slug_of = slug_of
        self._found: dict[tuple[str, str], tuple[Trigger, ...]] = {}
        self._named: dict[tuple[str, str], list[int]] = {}

    def forget(self) -> None:
        """Forget all triggers found so far, since ids may stand for other slugs now."""
        self._found.clear()
        self._named.clear()

    def wanting(self, audience: str, direction: Direction) -> tuple[Trigger, ...]:
        """Return the triggers that want an audience's events of this direction."""
        key = (audience, direction.value)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._look(*key)
        return found

    def _look(self, slug: str, direction: str) -> tuple[Trigger, ...]:
        if not self._named:
            self._name()
        numbers = {
            *self._named.get((slug, direction), ()),
            *self._named.get((ALL_AUDIENCES, direction), ()),
        }
        return tuple(self._triggers[number] for number in sorted(numbers))

    def _name(self) -> None:
        """Index the triggers by the audiences that they name; an id also stands for its slug."""
        for number, trigger in enumerate(self._triggers):
            for name in trigger.audiences:
                for slug in {name, self._slug_of(name)}:
                    self._named.setdefault((slug, trigger.on), []).append(number)


def routing_digest(settings: Settings) -> str:
    """Return a digest that changes when the same payloads would become other deliveries."""
    ids = settings.redis.ids
    triggers = [
        [one.name, ids.of(one.destination), one.audiences, one.on, one.export_fields]
        for _, one in sorted(settings.triggers.items())
    ]
    text = orjson.dumps([settings.delivery.identity, settings.redis.numbering.counts[0], triggers])
    return hashlib.sha256(text).hexdigest()[:12]


def export(
    profile: dict[str, Any], fields: tuple[str, ...], identity: str
) -> tuple[bytes, frozenset[str]]:
    """Return the packed profile of a delivery: all of it, or only these fields.

    The second result names the fields whose integers above 2^53 are carried as text.

    Args:
        profile: With its one segment event.
        fields: Beside the identity and `segment_events`, which are always carried; () = all.
        identity: The configured identity field.

    Raises:
        PayloadRefused: `unreadable` (nested too deep, or no JSON) or `too_large`.
    """
    if fields:
        wanted = {*fields, identity_field(profile, identity), SEGMENT_EVENTS}
        profile = {field: value for field, value in profile.items() if field in wanted}
    try:
        text, as_text = dumps_exactly(profile)
    except (TypeError, RecursionError) as error:
        raise PayloadRefused(Refusal.UNREADABLE, _why_no_json(error)) from error
    if len(text) > LARGEST_PROFILE_BYTES:
        raise PayloadRefused(
            Refusal.TOO_LARGE,
            f"The profile has {len(text)} bytes, at most {LARGEST_PROFILE_BYTES} can be carried; "
            "export_fields make it smaller.",
        )
    return pack_profile(text), as_text


def _why_no_json(error: Exception) -> str:
    if isinstance(error, RecursionError) or "Recursion" in str(error):
        return "The profile is nested deeper than 254 levels."
    return "The profile holds something that JSON has no form for."


class _CommonPart(NamedTuple):
    """The part of the deliveries that is the same for all rows of a block.

    Attributes:
        segment_events: Of each profile.
        headers: Of each trigger's deliveries, but for the digest.
        syncs: As `Drafter._syncs_for`.
    """

    segment_events: list[Any]
    triggers: tuple[Trigger, ...]
    headers: tuple[Header, ...]
    syncs: Mapping[str, Sequence[str]]


_Matched = tuple[Event, Sequence[Trigger]]
"""An event, and the triggers that want it."""


class Drafter:
    """Makes drafts for one configuration."""

    def __init__(self, settings: Settings, store: AudienceStore, fill: RoomMeter) -> None:
        self._settings = settings
        self._store = store
        self._store_version = store.version
        self._triggers = TriggerIndex(settings.triggers.values(), store.slug_of)
        self._fill = fill
        self._syncs: dict[str, Mapping[str, Sequence[str]]] = {}

    def draft(
        self,
        payloads: Iterable[bytes | Payload | Event],
        options: PublishOptions,
        portion: Portion | None = None,
    ) -> Draft:
        """Draft payloads or events; with a portion, as many of them as it allows."""
        draft = self._empty(options)
        for number, payload in enumerate(payloads, start=1):
            if isinstance(payload, Event):
                draft.payloads += 1
                event = replace(payload, skip_hook=options.skips_hook(payload))
                self._draft_event(event, draft, line=number, index=0)
            else:
                self._draft_payload(payload, number, draft)
            if portion is not None and portion.is_full(draft):
                break
        return draft

    def draft_rows(
        self, rows: Iterable[Payload], membership: RowForm, options: PublishOptions
    ) -> Draft:
        """Draft rows that all say the same about the people in them.

        What is not a plain profile, or can't be placed, goes the way of all payloads.
        """
        draft = self._empty(options)
        common = self._common_part(membership, draft)
        for number, row in enumerate(rows, start=1):
            if common is None or not self._take_row(row, common, draft):
                for payload in payloads_of(row, membership):
                    self._draft_payload(payload, number, draft)
        return draft

    def _common_part(self, membership: RowForm, draft: Draft) -> _CommonPart | None:
        """Return the part that all rows share; None if rows have to be drafted one by one."""
        if membership.column:
            return None
        identity = draft.reading.identity
        sample = {identity: "x", PROFILE_ID: "x", SEGMENT_EVENTS: [membership.entry({})]}
        (event,) = events_of(sample, draft.reading._replace(state=True))
        if isinstance(event, Refused) or self._store.now_called(event.audience) != event.audience:
            return None
        triggers = self._wanted(event, draft)
        skips = [t.skip_hook if t.skip_hook is not None else event.skip_hook for t in triggers]
        rest = (event.audience, event.direction, event.time_us, True)
        accepted_ms = draft.reading.now_us // 1_000
        headers = tuple(
            Header(b"", *rest, skip, repair=False, accepted_ms=accepted_ms, again=draft.again)
            for skip in skips
        )
        profile = self._store.identified(event.profile, event.audience)
        syncs = self._syncs_for(event)
        return _CommonPart(profile[SEGMENT_EVENTS], triggers, headers, syncs)

    def _take_row(self, row: Payload, common: _CommonPart, draft: Draft) -> bool:
        """Add the deliveries of a row; in any doubt, add nothing and return False."""
        if row.error or type(row.value) is not dict or not common.triggers:
            return False
        if has_own_events(row.value):
            return False
        profile = {**row.value, SEGMENT_EVENTS: common.segment_events}
        as_text: set[str] = set()
        try:
            key = profile_key(profile, draft.reading.identity)
            packs = self._exported(profile, common.triggers, as_text)
            digest = digest_of(key)
        except (PayloadRefused, ValueError):
            return False
        partition = draft.numbering.of(key, digest)
        draft.payloads += 1
        draft.events += 1
        draft.numbers += 1
        for trigger, header, packed in zip(common.triggers, common.headers, packs, strict=True):
            own = Header(digest, *header[1:])
            delivery = NewDelivery(draft.lane, trigger.name, own, packed, draft.numbers)
            draft.deliveries.setdefault((trigger.destination, partition), []).append(delivery)
            draft.without_hook += header.skip_hook
            self._intent(key, (trigger.destination, partition), common.syncs, draft)
        if as_text:
            draft.as_text.update(as_text)
        return True

    def draft_as_they_are(self, events: Iterable[Event], lane: str) -> Draft:
        """Draft events that were judged good a moment ago."""
        draft = self._empty(PublishOptions(lane))
        for event in events:
            matched = self._matched(event, draft)
            self._deliver(matched, draft)
            self._note_each(matched, draft)
        return draft

    def draft_members(self, destination: str, changes: Iterable[MemberChange], lane: str) -> Draft:
        """Return the draft of a sync's changes at one destination.

        An event that none of its triggers wants is none; what can't be packed is refused, and its
        member changes all the same.
        """
        draft = self._empty(PublishOptions(lane))
        for change in changes:
            place = (destination, draft.numbering.of(change.member.key))
            members = draft.members.setdefault(place, [])
            members.append(change.member)
            draft.numbers = len(members)
            if change.event is not None:
                self._draft_member_event(change.event, destination, draft)
        return draft

    def _draft_member_event(self, event: Event, destination: str, draft: Draft) -> None:
        wanted = self.triggers_for(event.audience, event.direction)
        triggers = [trigger for trigger in wanted if trigger.destination == destination]
        try:
            self._deliver([(event, triggers)], draft)
            draft.events += 1
        except PayloadRefused as refusal:
            draft.refuse(_refused_event(event, refusal), line=0, index=0)

    def triggers_for(self, audience: str, direction: Direction) -> tuple[Trigger, ...]:
        """Return the triggers that want an audience's events of this direction."""
        if self._store.version != self._store_version:
            self._triggers.forget()
            self._syncs.clear()
            self._store_version = self._store.version
        return self._triggers.wanting(audience, direction)

    def judged(
        self, content: bytes, options: PublishOptions, *, arrived_us: int
    ) -> list[Event | Refused]:
        """Read a text from the quarantine again; return events that a trigger wants, and refusals.

        A change that has no time of its own keeps `arrived_us`, when it came first.
        """
        reading = self._reading(options)._replace(arrived_us=arrived_us)
        try:
            found = list(events_of(load(content), reading))
        except PayloadRefused as refusal:
            return [refused(0, refusal, content=content)]
        return [self._judged(item, content) for item in found]

    def _judged(self, item: Event | Refused, content: bytes) -> Event | Refused:
        if isinstance(item, Refused):
            return item
        draft = self._empty(PublishOptions())
        matched = self._matched(item, draft)
        if not matched:
            return Refused(0, Refusal.NO_TRIGGER, _no_trigger(item), item.audience, content)
        try:
            self._deliver(matched, draft)
        except PayloadRefused as refusal:
            return refused(0, refusal, content=content, audience=item.audience)
        return item

    def _empty(self, options: PublishOptions) -> Draft:
        numbering = self._settings.redis.numbering
        return Draft(
            options.lane, self._reading(options), numbering, options.triggers, options.again
        )

    def _reading(self, options: PublishOptions) -> ReadingRules:
        now_us = self._fill.now_us()
        delivery = self._settings.delivery
        oldest_us = 0 if options.older_than_ledger else delivery.remembers_since_us(now_us)
        return ReadingRules(
            now_us,
            now_us,
            delivery.identity,
            self._store.resolve,
            options.state,
            options.skips,
            oldest_us,
        )

    def _draft_payload(self, payload: bytes | Payload, number: int, draft: Draft) -> None:
        if isinstance(payload, bytes):
            payload = _parsed(payload, number)
        line = payload.line or number
        if payload.error:
            draft.payloads += 1
            draft.numbers += 1
            unread = Refused(0, payload.reason, payload.error, "", payload.text)
            draft.refuse(unread, line=line, index=payload.index)
            return
        draft.payloads += payloads_in(payload.value)
        reading = draft.reading._replace(state=True) if payload.state else draft.reading
        for index, item in _items(payload, reading):
            if isinstance(item, Refused):
                draft.numbers += 1
                draft.refuse(item, line=line, index=index)
            else:
                self._draft_event(item, draft, line=line, index=index)

    def _draft_event(self, event: Event, draft: Draft, *, line: int, index: int) -> None:
        draft.numbers += 1
        matched = self._matched(event, draft)
        if not matched:
            draft.events += 1
            draft.unmatched += 1
            draft.keep(Refusal.NO_TRIGGER, event.audience, _no_trigger(event), content_of(event))
            return
        try:
            self._deliver(matched, draft)
            draft.events += 1
        except PayloadRefused as refusal:
            draft.refuse(_refused_event(event, refusal), line=line, index=index)
            return
        self._note_each(matched, draft)

    def _note_each(self, matched: Iterable[_Matched], draft: Draft) -> None:
        for event, triggers in matched:
            syncs = self._syncs_for(event)
            if syncs:
                partition = draft.numbering.of(event.profile_key)
                for trigger in triggers:
                    place = (trigger.destination, partition)
                    self._intent(event.profile_key, place, syncs, draft)

    def _intent(
        self, key: str, place: PartitionAddress, syncs: Mapping[str, Sequence[str]], draft: Draft
    ) -> None:
        """Note the name of somebody who enters for the syncs of the audience.

        The ledger has digests only. If the person leaves, and that event gets lost before a run
        has seen them, nobody else could say who has to leave.
        """
        for sync in syncs.get(place[0], ()):
            entrant = Entrant(sync, key, draft.reading.now_us // 1_000)
            draft.entrants.setdefault(place, set()).add(entrant)

    def _syncs_for(self, event: Event) -> Mapping[str, Sequence[str]]:
        """Return, by destination, the syncs that need the name of whoever enters by an event.

        None do where no trigger could tell the destination that the person leaves.
        """
        if event.direction is not Direction.ENTER or not self._settings.sync:
            return {}
        exits = self.triggers_for(event.audience, Direction.EXIT)
        found = self._syncs.get(event.audience)
        if found is None:
            slug = self._store.now_called(event.audience)
            names = [
                schedule.name
                for schedule in self._settings.sync.values()
                if slug
                == self._store.now_called(
                    self._store.slug_of(schedule.audience) or schedule.audience
                )
            ]
            found = {exit_.destination: names for exit_ in exits} if names else {}
            self._syncs[event.audience] = found
        return found

    def _matched(self, event: Event, draft: Draft) -> Sequence[_Matched]:
        """Return the event with the triggers that want it; nothing if none do.

        What comes under a former slug goes to the triggers that name it; the drain carries it over
        to the new slug. A destination without any gets it under the new slug at once.
        """
        triggers = self._wanted(event, draft)
        slug = event.audience if event.former else self._store.now_called(event.audience)
        if slug == event.audience:
            return [(event, triggers)] if triggers else []
        renamed = event.about(slug)
        served = {trigger.destination for trigger in triggers}
        others = tuple(t for t in self._wanted(renamed, draft) if t.destination not in served)
        return [pair for pair in ((event, triggers), (renamed, others)) if pair[1]]

    def _wanted(self, event: Event, draft: Draft) -> tuple[Trigger, ...]:
        triggers = self.triggers_for(event.audience, event.direction)
        if draft.triggers:
            return tuple(trigger for trigger in triggers if trigger.name in draft.triggers)
        return triggers

    def _deliver(self, matched: Iterable[_Matched], draft: Draft) -> None:
        """Add an event's deliveries to the draft: all or, if one can't be packed, none.

        Raises:
            PayloadRefused: One can't be packed.
        """
        as_text: set[str] = set()
        with one_costs_one():
            added = [
                delivery
                for event, triggers in matched
                for delivery in self._deliveries(event, triggers, draft, as_text)
            ]
        for place, delivery in added:
            draft.deliveries.setdefault(place, []).append(delivery)
            draft.size_bytes += len(delivery.profile)
            draft.without_hook += delivery.header.skip_hook
        draft.as_text.update(as_text)

    def _deliveries(
        self, event: Event, triggers: Sequence[Trigger], draft: Draft, as_text: set[str]
    ) -> Iterator[tuple[PartitionAddress, NewDelivery]]:
        profile = self._store.identified(event.profile, event.audience)
        packs = self._exported(profile, triggers, as_text)
        header = header_of(event, accepted_ms=draft.reading.now_us // 1_000)
        if draft.again:
            header = header._replace(again=True)
        partition = draft.numbering.of(event.profile_key, header.digest)
        for trigger, packed in zip(triggers, packs, strict=True):
            own = header
            if trigger.skip_hook is not None and trigger.skip_hook != event.skip_hook:
                own = header._replace(skip_hook=trigger.skip_hook)
            delivery = NewDelivery(draft.lane, trigger.name, own, packed, draft.numbers)
            yield (trigger.destination, partition), delivery

    def _exported(
        self, profile: dict[str, Any], triggers: Iterable[Trigger], as_text: set[str]
    ) -> list[bytes]:
        """Return, for each trigger, the packed part of a profile that its deliveries carry.

        Raises:
            PayloadRefused: One can't be packed.
        """
        identity = self._settings.delivery.identity
        whole = b""
        texts = []
        for trigger in triggers:
            text = b"" if trigger.export_fields else whole
            if not text:
                text, changed = export(profile, trigger.export_fields, identity)
                if changed:
                    as_text |= changed
                if not trigger.export_fields:
                    whole = text
            texts.append(text)
        return texts


def _items(payload: Payload, reading: ReadingRules) -> Iterator[tuple[int, Event | Refused]]:
    """Yield a payload's events and refusals with the index of their payload."""
    if not isinstance(payload.value, list) or not payload.value:
        for item in events_of(payload.value, reading):
            yield payload.index, item
        return
    for index, value in enumerate(payload.value):
        for item in events_of([value], reading):
            yield index, item


def _parsed(text: bytes, number: int) -> Payload:
    try:
        return Payload(text, load(text), number)
    except PayloadRefused as refusal:
        return Payload(text, None, number, error=refusal.message)


def _refused_event(event: Event, refusal: PayloadRefused) -> Refused:
    return refused(0, refusal, content=content_of(event), audience=event.audience)


def _no_trigger(event: Event) -> str:
    return f"No trigger wants the {event.direction} of audience '{event.audience}'."
