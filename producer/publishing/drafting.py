"""Drafting: from payloads or events to the deliveries and quarantine records that they become.

An event is matched with the triggers that want it, and each trigger's delivery gets the fields that
it exports. A draft asks Redis for nothing but audiences. Whatever is raised about one payload or
event is its refusal and costs no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from segrelay.producer.events.payloads import (
    PROFILE_ID,
    SEGMENT_EVENTS,
    Payload,
    ReadingRules,
    Refused,
    RowForm,
    as_refusal,
    content_of,
    dumps_exactly,
    events_of,
    has_own_events,
    identity_field,
    load,
    payloads_of,
    profile_key,
    values_of,
)
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.publishing.published import (
    AS_USUAL,
    CapacityMeter,
    Draft,
    MemberChange,
    PartitionAddress,
    Portion,
    Published,
    PublishOptions,
)
from segrelay.worker.contract.events import Event, Header, header_of, pack_profile
from segrelay.worker.contract.keys import digest_of, partition_of
from segrelay.worker.contract.redis.accept import Entrant, NewDelivery
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import Direction, Refusal
from segrelay.worker.errors import PayloadRefused

LARGEST_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""The largest JSON text of a profile, in bytes: a body for Insider has at most 5,000,000."""


def routing_digest(settings: Settings) -> str:
    """Return a digest that changes when the same payloads would become other deliveries."""
    triggers = [
        [one.name, one.destination, one.audiences, one.on, one.export_fields]
        for _, one in sorted(settings.triggers.items())
    ]
    text = orjson.dumps([settings.delivery.identity, settings.redis.partitions, triggers])
    return hashlib.sha256(text).hexdigest()[:12]


def export(
    profile: dict[str, Any], fields: tuple[str, ...], identity: str, ending: bytes = b""
) -> bytes:
    """Return the packed profile of a delivery: all of it, or only these fields.

    Args:
        profile: The profile with its one segment event, or without where `ending` has that.
        fields: The fields to keep beside the identity and `segment_events`; () = all.
        identity: The configured identity field.
        ending: The text behind the last field of a profile that has no segment event itself.

    Raises:
        PayloadRefused: `unreadable` (nested too deep, or no JSON) or `too_large`.
    """
    if fields:
        wanted = {*fields, identity_field(profile, identity), SEGMENT_EVENTS}
        profile = {field: value for field, value in profile.items() if field in wanted}
    try:
        text = dumps_exactly(profile)
    except (TypeError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError) or "Recursion" in str(error)
        why = "is nested deeper than 254 levels" if is_deep else "holds what JSON has no form for"
        raise PayloadRefused(Refusal.UNREADABLE, f"The profile {why}.") from error
    if ending:
        text = text[:-1] + ending
    if len(text) > LARGEST_PROFILE_BYTES:
        raise PayloadRefused(
            Refusal.TOO_LARGE,
            f"The profile has {len(text)} bytes, at most {LARGEST_PROFILE_BYTES} can be carried; "
            "export_fields make it smaller.",
        )
    return pack_profile(text)


_Part = tuple[Header, dict[str, Any], Sequence[Trigger]]
"""The header and profile of deliveries, and the triggers that they are for."""


_RowEvent = tuple[bytes, Header, Sequence[Trigger]]
"""The event of all rows of a block that are profiles without events: only people differ.

It is the JSON text that follows the last field of a profile, the header of an example, whose digest
is nobody's, and the triggers that want the event.
"""


class Drafter:
    """Makes drafts for one configuration."""

    def __init__(self, settings: Settings, store: AudienceStore, meter: CapacityMeter) -> None:
        self._settings = settings
        self._store = store
        self._meter = meter
        self._store_version = -1
        self._wanting: dict[tuple[str, Direction], tuple[Trigger, ...]] = {}
        self._syncs: dict[str, Mapping[str, Sequence[str]]] = {}

    def draft(
        self,
        payloads: Iterable[bytes | Payload | Event],
        options: PublishOptions,
        *,
        form: RowForm | None = None,
    ) -> Draft:
        """Draft payloads or events.

        Args:
            payloads: as `Publisher.publish` takes them.
            options: the way in which they are published.
            form: the event of payloads that are profiles without any; None = they are refused.
        """
        draft = self._empty(options)
        common = self._row_event(form, draft)
        for number, payload in enumerate(payloads, start=1):
            if isinstance(payload, Event):
                draft.result.payloads += 1
                event = replace(payload, skip_hook=options.skips_hook(payload))
                self._draft_event(event, draft, number)
            else:
                row = _parsed(payload, number) if isinstance(payload, bytes) else payload
                if form is None:
                    self._draft_payload(row, draft, number)
                elif common is None or not self._draft_row(row, common, draft):
                    for one in payloads_of(row, form):
                        self._draft_payload(one, draft, number)
        return draft

    def draft_each(
        self, groups: Iterable[Iterable[Payload]], *, portion: Portion, together: Portion
    ) -> tuple[Draft, list[Published]]:
        """Draft groups of payloads as usual, as one draft, and return the result of each group.

        Args:
            groups: the groups.
            portion: the events and bytes behind which no more of a group is taken.
            together: the events and bytes of all groups behind which no further group is taken.
        """
        draft, results = self._empty(AS_USUAL), list[Published]()
        begun = Portion.of(draft)
        for group in groups:
            held, first = Portion.of(draft), draft.deliveries_count
            draft.result = Published()
            for number, payload in enumerate(group, start=1):
                self._draft_payload(payload, draft, number)
                if portion.is_reached(draft, held):
                    break
            draft.result.accepted = draft.deliveries_count - first
            draft.result.people = draft.people(first)
            results.append(draft.result)
            if together.is_reached(draft, begun):
                break
        draft.result = Published()
        return draft, results

    def _row_event(self, form: RowForm | None, draft: Draft) -> _RowEvent | None:
        """Return the event that profiles without events get.

        Making it once takes a third of what making it for each row would. There is none if the
        rows' events differ in more than the person, or if nobody wants them.
        """
        if form is None or form.column:
            return None
        profile = {draft.reading.identity: "x", PROFILE_ID: "x", SEGMENT_EVENTS: [form.entry({})]}
        (event,) = events_of(profile, draft.reading._replace(state=True))
        if isinstance(event, Refused):
            return None
        triggers = self._wanted(event, draft)
        header, made, _ = self._part(event, triggers, draft)
        ending = b"," + orjson.dumps({SEGMENT_EVENTS: made[SEGMENT_EVENTS]})[1:]
        return (ending, header, triggers) if triggers else None

    def _draft_row(self, row: Payload, common: _RowEvent, draft: Draft) -> bool:
        """Add the deliveries of a profile without events; in any doubt, return False instead."""
        profile = row.value
        if row.error or type(profile) is not dict or has_own_events(profile):
            return False
        ending, header, triggers = common
        draft.numbers += 1
        try:
            key = profile_key(profile, draft.reading.identity)
            header = header._replace(digest=digest_of(key))
            self._deliver(key, (header, profile, triggers), draft, ending)
        except (PayloadRefused, ValueError):
            draft.numbers -= 1
            return False
        draft.result.payloads += 1
        draft.result.events += 1
        self._add_entrants(key, header, triggers, draft)
        return True

    def _draft_payload(self, payload: Payload, draft: Draft, number: int) -> None:
        line = payload.line or number
        if payload.error:
            draft.result.payloads += 1
            draft.numbers += 1
            unread = Refused(payload.reason, payload.error, content=payload.text)
            draft.refuse(unread, line, payload.index)
            return
        values = values_of(payload.value)
        draft.result.payloads += len(values)
        rules = draft.reading._replace(state=True) if payload.state else draft.reading
        first = 0 if values is payload.value else payload.index
        for index, value in enumerate(values, first):
            for item in events_of(value, rules):
                if isinstance(item, Event):
                    self._draft_event(item, draft, line, index)
                else:
                    draft.numbers += 1
                    draft.refuse(item, line, index)

    def _draft_event(self, event: Event, draft: Draft, line: int, index: int = 0) -> None:
        draft.numbers += 1
        triggers = self._wanted(event, draft)
        if not triggers:
            draft.result.events += 1
            draft.result.unmatched += 1
            message = f"No trigger wants the {event.direction} of audience '{event.audience}'."
            refused = Refused(Refusal.NO_TRIGGER, message, event.audience, content_of(event))
            draft.keep(refused)
            return
        if header := self._deliver_event(event, triggers, draft, line, index):
            self._add_entrants(event.profile_key, header, triggers, draft)

    def _deliver_event(
        self, event: Event, triggers: Sequence[Trigger], draft: Draft, *place: int
    ) -> Header | None:
        """Add the deliveries of an event; if one can't be packed, its refusal instead.

        The place is the line and the index of the payload; none = it is of no source.
        """
        try:
            part = self._part(event, triggers, draft)
            self._deliver(event.profile_key, part, draft)
        except Exception as error:  # noqa: BLE001 - one event must not cost the others anything
            refusal = as_refusal(error)
            refused = Refused.of(refusal, content_of(event), event.audience)
            draft.refuse(refused, *(place or (0, 0)))
            return None
        draft.result.events += 1
        return part[0]

    def draft_members(self, destination: str, changes: Iterable[MemberChange], lane: str) -> Draft:
        """Return the draft of a sync's changes at one destination.

        An event that none of its triggers wants is none; what can't be packed is refused, and its
        member changes all the same.
        """
        draft = self._empty(PublishOptions(lane))
        wanting: dict[tuple[str, Direction], Sequence[Trigger]] = {}
        for member, event in changes:
            address = (destination, partition_of(member.key, draft.partitions))
            members = draft.members.setdefault(address, [])
            members.append(member)
            draft.numbers = len(members)
            if event is None:
                continue
            kind = event.audience, event.direction
            if kind not in wanting:
                wanted = self.triggers_for(*kind)
                wanting[kind] = [each for each in wanted if each.destination == destination]
            self._deliver_event(event, wanting[kind], draft)
        return draft

    def judged(
        self, content: bytes, options: PublishOptions, *, arrived_us: int
    ) -> list[Event | Refused]:
        """Read a text from the quarantine again; return events that a trigger wants, and refusals.

        A change that has no time of its own keeps `arrived_us`, when it came first.
        """
        rules = self._rules(options)._replace(arrived_us=arrived_us)
        try:
            values = values_of(load(content))
        except PayloadRefused as refusal:
            return [Refused.of(refusal, content)]
        found = (item for value in values for item in events_of(value, rules))
        return [self._judged(item) if isinstance(item, Event) else item for item in found]

    def _judged(self, event: Event) -> Event | Refused:
        draft = self._empty(AS_USUAL)
        self._draft_event(event, draft, 0)
        return next(iter((*draft.kept, *draft.result.problems)), event)

    def triggers_for(self, audience: str, direction: Direction) -> tuple[Trigger, ...]:
        """Return the triggers that want an audience's events of this direction."""
        if self._store.version != self._store_version:
            # The ids that triggers and syncs name may stand for other slugs now.
            self._wanting.clear()
            self._syncs.clear()
            self._store_version = self._store.version
        key = (audience, direction)
        found = self._wanting.get(key)
        if found is None:
            wanted = {ALL_AUDIENCES, audience}
            found = self._wanting[key] = tuple(
                trigger
                for trigger in self._settings.triggers.values()
                if trigger.on == direction
                and not wanted.isdisjoint(
                    name for one in trigger.audiences for name in (one, self._store.slug_of(one))
                )
            )
        return found

    def _empty(self, options: PublishOptions) -> Draft:
        return Draft(
            options.lane,
            self._rules(options),
            self._settings.redis.partitions,
            options.triggers,
            options.again,
        )

    def _rules(self, options: PublishOptions) -> ReadingRules:
        now_us = self._meter.now_us()
        delivery = self._settings.delivery
        return ReadingRules(
            now_us,
            now_us,
            delivery.identity,
            self._store.resolve,
            options.state,
            options.skips,
            0 if options.older_than_ledger else delivery.remembers_since_us(now_us),
        )

    def _add_entrants(
        self, key: str, header: Header, triggers: Sequence[Trigger], draft: Draft
    ) -> None:
        """Add the name of somebody who enters, for the syncs of the audience.

        The ledger has digests only. If the person leaves, and that event gets lost before a run
        has seen them, nobody else could say who has to leave.
        """
        syncs = self._syncs_for(header) if self._settings.sync else {}
        for trigger in triggers if syncs else ():
            address = (trigger.destination, partition_of(key, draft.partitions))
            for sync in syncs.get(trigger.destination, ()):
                entrant = Entrant(sync, key, draft.reading.now_us // 1_000)
                draft.entrants.setdefault(address, set()).add(entrant)

    def _syncs_for(self, header: Header) -> Mapping[str, Sequence[str]]:
        """Return, by destination, the syncs that need the name of whoever enters by an event.

        None do where no trigger could tell the destination that the person leaves.
        """
        if header.direction is not Direction.ENTER:
            return {}
        exits = self.triggers_for(header.audience, Direction.EXIT)
        found = self._syncs.get(header.audience)
        if found is None:
            names = [
                sync.name
                for sync in self._settings.sync.values()
                if (self._store.slug_of(sync.audience) or sync.audience) == header.audience
            ]
            found = {exit_.destination: names for exit_ in exits} if names else {}
            self._syncs[header.audience] = found
        return found

    def _wanted(self, event: Event, draft: Draft) -> tuple[Trigger, ...]:
        triggers = self.triggers_for(event.audience, event.direction)
        if draft.triggers:
            return tuple(trigger for trigger in triggers if trigger.name in draft.triggers)
        return triggers

    def _part(self, event: Event, triggers: Sequence[Trigger], draft: Draft) -> _Part:
        header = header_of(event, accepted_ms=draft.reading.now_us // 1_000)
        if draft.again:
            header = header._replace(again=True)
        return header, self._store.identified(event.profile, event.audience), triggers

    def _deliver(self, key: str, part: _Part, draft: Draft, ending: bytes = b"") -> None:
        """Add the deliveries of one event to the draft: all or, if one can't be packed, none.

        The ending is the text behind the last field of a profile that has no segment event itself.

        Raises:
            PayloadRefused: One can't be packed.
        """
        header, profile, triggers = part
        added: list[tuple[PartitionAddress, NewDelivery]] = []
        partition = partition_of(key, draft.partitions)
        whole = b""
        for trigger in triggers:
            fields = trigger.export_fields
            packed = b"" if fields else whole
            if not packed:
                packed = export(profile, fields, draft.reading.identity, ending)
                whole = whole if fields else packed
            own = _header_for(header, trigger)
            delivery = NewDelivery(draft.lane, trigger.name, own, packed, draft.numbers)
            added.append(((trigger.destination, partition), delivery))
        for address, delivery in added:
            draft.add(address, delivery)


def _header_for(header: Header, trigger: Trigger) -> Header:
    """Return the header of an event's delivery for one trigger, which may overrule the hook."""
    skip_hook = trigger.skip_hook
    if skip_hook is None or skip_hook == header.skip_hook:
        return header
    return header._replace(skip_hook=skip_hook)


def _parsed(text: bytes, number: int) -> Payload:
    try:
        return Payload(text, load(text), number)
    except PayloadRefused as refusal:
        return Payload(text, None, number, error=refusal.message)
