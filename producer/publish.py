"""Publishing: payloads or events in, deliveries in Redis out. Every producer ends here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from redis import Redis

from producer.audiences import AudienceBook
from producer.doorbell import CeleryDoorbell, Doorbell
from producer.matching import Route, Routes, pack_exported, pack_whole
from producer.payloads import Payload, Reading, Refused, content_of, events_of, load, payloads_in
from producer.published import Draft, Published
from producer.quarantine import CAP_BYTES, Quarantine
from producer.room import Fill, NoRoom, Room
from producer.writing import Place, Progress, Written, write
from worker.contract.accept import NewDelivery
from worker.contract.claim import claim
from worker.contract.events import Event, header_of
from worker.contract.keys import partition_of
from worker.contract.settings import Settings
from worker.contract.words import (
    BACKFILL,
    JOB_PREFIX,
    LIVE,
    NAME_PATTERN,
    Refusal,
    job_of_lane,
    kind_of_lane,
    lane_of_job,
)
from worker.errors import PayloadRefused, RedisUnavailable, UsageWrong


class Publisher:
    """Publishes for one configuration; not for several threads at once.

    Args:
        doorbell: Rung for partitions whose bell was silent; Celery's if not given.
    """

    def __init__(
        self, client: Redis, settings: Settings, *, doorbell: Doorbell | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        self._doorbell = doorbell or CeleryDoorbell(settings)
        self._book = AudienceBook(client)
        self._book_version = self._book.version
        self._routes = Routes(settings.triggers.values(), self._book.slug_of)
        self._quarantine = Quarantine(client)
        self._fill = Fill(client, settings)
        self._claimed = False

    def room(self, lane: str = LIVE) -> Room | NoRoom:
        """Whether more may be published into this lane; backfill has to ask before each call."""
        return self._fill.lane(lane)

    def publish(
        self,
        payloads: Iterable[bytes | Payload | Event],
        lane: str = LIVE,
        *,
        job: str = "",
        state: bool = False,
        skip_hook: bool = False,
        position: int | None = None,
        source: str = "",
    ) -> Published:
        """Write the deliveries of these payloads, keep what can't be placed, ring.

        Args:
            payloads: JSON texts, payloads that were parsed, or events.
            lane: `live`, `backfill`, or a job's lane.
            job: Name of a job, which has a lane of its own.
            state: The events were made up by comparison.
            skip_hook: The destination should not start journeys; a trigger may overrule it.
            position: Where in the job's source this call ends. What is not beyond the position
                that Redis knows was published by an earlier run, and is ignored; so calls must
                end at the same positions in every run.
            source: What the positions count in, e.g. a digest of the file.

        Returns:
            When Redis has it.

        Raises:
            RedisUnavailable: Redis is full (then nothing was written), or was lost in between
                (then some of it may be written; publishing all of it again is safe).
            RedisMismatch: Redis is in use with another configuration.
            UsageWrong: There is no such lane.
        """
        lane = lane_for(lane, job)
        self._prepare()
        draft = Draft(lane, self._reading(state=state, skip_hook=skip_hook))
        for number, payload in enumerate(payloads, start=1):
            self._read(payload, number, draft)
        written = self._write(draft, Progress(job_of_lane(lane), position, source))
        self._keep(draft)
        self._ring(written.rang, lane)
        return Published(
            draft.payloads,
            draft.events,
            written.accepted,
            draft.unmatched,
            len(draft.problems),
            written.repeated,
            tuple(draft.problems),
            written.rang,
        )

    def place(self, events: Sequence[Event], lane: str) -> int:
        """Write the deliveries of events that are in the quarantine; return how many.

        Raises:
            RedisUnavailable: As `publish`.
        """
        self._prepare()
        draft = Draft(lane, self._reading())
        for event in events:
            self._deliver(event, self._routes_of(event), draft)
        written = self._write(draft, Progress(job_of_lane(lane)))
        self._ring(written.rang, lane)
        return written.accepted

    def read_again(
        self, content: bytes, *, arrived_us: int, state: bool, skip_hook: bool
    ) -> list[Event | Refused]:
        """Return what a text from the quarantine gives today; events only if a trigger wants them.

        A change that has no time of its own keeps `arrived_us`, when it came first.
        """
        self._prepare()
        reading = self._reading(state=state, skip_hook=skip_hook)._replace(arrived_us=arrived_us)
        try:
            found = list(events_of(load(content), reading))
        except PayloadRefused as refusal:
            return [Refused(0, Refusal(refusal.reason), refusal.message, "", content)]
        return [self._judged(item, content) for item in found]

    def _judged(self, item: Event | Refused, content: bytes) -> Event | Refused:
        if isinstance(item, Refused):
            return item
        routes = self._routes_of(item)
        if not routes:
            return Refused(0, Refusal.NO_TRIGGER, _no_trigger(item), item.audience, content)
        try:
            self._deliver(item, routes, Draft(LIVE, self._reading()))
        except PayloadRefused as refusal:
            return Refused(0, Refusal(refusal.reason), refusal.message, item.audience, content)
        return item

    def _prepare(self) -> None:
        room = self._fill.memory()
        if isinstance(room, NoRoom):
            raise RedisUnavailable(room.message)
        if not self._claimed:
            claim(self._client, self._settings)
            self._claimed = True

    def _read(self, payload: bytes | Payload | Event, number: int, draft: Draft) -> None:
        if isinstance(payload, Event):
            draft.payloads += 1
            self._take(payload, draft, line=number, index=0)
            return
        if isinstance(payload, bytes):
            payload = _parsed(payload, number)
        if payload.error:
            draft.payloads += 1
            refused = Refused(0, payload.reason, payload.error, "", payload.text)
            draft.refuse(refused, line=payload.line or number, index=payload.index)
            return
        draft.payloads += payloads_in(payload.value)
        line = payload.line or number
        for index, item in self._items(payload, draft):
            if isinstance(item, Refused):
                draft.refuse(item, line=line, index=index)
            else:
                self._take(item, draft, line=line, index=index)

    def _items(self, payload: Payload, draft: Draft) -> Iterator[tuple[int, Event | Refused]]:
        """Yield a payload's events and refusals with the index of their payload."""
        reading = draft.reading
        if not isinstance(payload.value, list) or not payload.value:
            for item in events_of(payload.value, reading):
                yield payload.index, item
            return
        for index, value in enumerate(payload.value):
            for item in events_of([value], reading):
                yield index, item

    def _reading(self, *, state: bool = False, skip_hook: bool = False) -> Reading:
        now_us = self._fill.now_us()
        identity = self._settings.delivery.identity
        return Reading(now_us, now_us, identity, self._book.resolve, state, skip_hook)

    def _take(self, event: Event, draft: Draft, *, line: int, index: int) -> None:
        routes = self._routes_of(event)
        if not routes:
            draft.events += 1
            draft.unmatched += 1
            draft.keep(Refusal.NO_TRIGGER, event.audience, _no_trigger(event), content_of(event))
            return
        try:
            self._deliver(event, routes, draft)
            draft.events += 1
        except PayloadRefused as refusal:
            reason = Refusal(refusal.reason)
            refused = Refused(index, reason, refusal.message, event.audience, content_of(event))
            draft.refuse(refused, line=line, index=index)

    def _routes_of(self, event: Event) -> tuple[Route, ...]:
        if self._book.version != self._book_version:
            self._routes.forget()
            self._book_version = self._book.version
        return self._routes.of(event)

    def _deliver(self, event: Event, routes: Sequence[Route], draft: Draft) -> None:
        """Add the event's deliveries to the draft: all or, if one can't be packed, none."""
        header = header_of(event, accepted_ms=draft.reading.now_us // 1_000)
        partition = partition_of(event.profile_key, self._settings.redis.partitions)
        identity = self._settings.delivery.identity
        whole = b""
        added: list[tuple[Place, NewDelivery]] = []
        for route in routes:
            if route.export_fields:
                text = pack_exported(event, route.export_fields, identity)
            else:
                text = whole = whole or pack_whole(event)
            own = header
            if route.skip_hook is not None and route.skip_hook != event.skip_hook:
                own = header._replace(skip_hook=route.skip_hook)
            delivery = NewDelivery(draft.lane, route.trigger, own, text)
            added.append(((route.destination, partition), delivery))
        for place, delivery in added:
            draft.deliveries.setdefault(place, []).append(delivery)

    def _write(self, draft: Draft, progress: Progress) -> Written:
        written = write(self._client, draft.deliveries, progress)
        self._fill.add(written.accepted)
        return written

    def _keep(self, draft: Draft) -> None:
        if draft.kept:
            self._quarantine.keep(
                draft.kept,
                now_ms=draft.reading.now_us // 1_000,
                cap_bytes=self._fill.quarantine_bytes(CAP_BYTES),
            )

    def _ring(self, places: Iterable[Place], lane: str) -> None:
        for destination, partition in places:
            self._doorbell.ring(destination, partition, queue=kind_of_lane(lane))


def lane_for(lane: str, job: str) -> str:
    """Return the lane into which something goes: the named one, or the job's own.

    Raises:
        UsageWrong: There is no such lane, or the job's name is none.
    """
    if job:
        return lane_of_job(_checked_job(job))
    if lane in (LIVE, BACKFILL):
        return lane
    if lane.startswith(JOB_PREFIX):
        return lane_of_job(_checked_job(job_of_lane(lane)))
    raise UsageWrong(f"There is no lane '{lane}': it is {LIVE} or {BACKFILL}; a job has its own.")


def _checked_job(job: str) -> str:
    if NAME_PATTERN.fullmatch(job):
        return job
    raise UsageWrong(f"A job's name has only a to z, 0 to 9 and -; '{job}' has others.")


def _parsed(text: bytes, number: int) -> Payload:
    try:
        return Payload(text, load(text), number)
    except PayloadRefused as refusal:
        return Payload(text, None, number, error=refusal.message)


def _no_trigger(event: Event) -> str:
    return f"No trigger wants the {event.direction} of audience '{event.audience}'."
