"""The reasons why a person's deliveries wait: pauses, failures, refusals, missing answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from ops.state.delays import Delays, read_delays, times
from ops.state.waiting import WaitingEntry, is_orphan
from ops.terminal.moments import shown_ms
from worker.adapters.redis.gate import read_state
from worker.batch.partition import Note
from worker.contract.keys import PartitionKeys
from worker.contract.processes.workers import read_processes
from worker.contract.redis.clock import now_ms
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.triggers.pauses import Pause, Pauses, read_pauses
from worker.contract.words import job_of_lane
from worker.core.gate import GateStatus, gate_id


@dataclass(slots=True)
class Obstacles:
    """All reasons why deliveries in some partitions may wait.

    Args:
        person: The digest of the person; entries under another one are those of a former identity.
        renaming: The digests of those who are being renamed, by destination.
    """

    settings: Settings
    now_ms: int
    pauses: Pauses
    has_worker: bool
    person: bytes = b""
    delays: dict[PartitionKeys, Delays] = field(default_factory=dict)
    notes: dict[PartitionKeys, list[Note]] = field(default_factory=dict)
    renaming: frozenset[tuple[str, bytes]] = frozenset()
    gates: dict[str, GateStatus] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        client: Redis,
        settings: Settings,
        places: Sequence[PartitionKeys],
        *,
        person: bytes,
        renaming: frozenset[tuple[str, bytes]],
    ) -> Obstacles:
        """Read the pauses, delays, open notes and gates of partitions."""
        found = cls(
            settings,
            now_ms(client),
            read_pauses(client),
            has_worker=bool(read_processes(client)),
            person=person,
            renaming=renaming,
        )
        for place, delays in zip(places, read_delays(client, places), strict=True):
            name = place.destination
            found.delays[place] = delays
            found.notes[place] = list(_open_notes(client, place))
            known = settings.destinations.get(name)
            if known and name not in found.gates:
                gate = gate_id(known.base_url, known.gate_scope)
                found.gates[name] = read_state(client, gate)
        return found

    def of(self, entry: WaitingEntry) -> str:
        """Return the reason why an entry waits; "" = it is due."""
        return "; ".join(self._all_of(entry))

    def _all_of(self, entry: WaitingEntry) -> Iterator[str]:
        place, trigger = entry.stream.place, entry.stream.trigger
        job = job_of_lane(entry.stream.lane)
        if is_orphan(self.settings, place, trigger):
            yield "the configuration has no such trigger for this destination"
        yield from self._identity(entry)
        yield from _paused("destination", self.pauses.destinations.get(place.destination))
        yield from self._gate(place.destination)
        yield from _paused("trigger", self.pauses.triggers.get(trigger))
        if job:
            yield from _paused("job", self.pauses.jobs.get(job))
        yield from self._delays(entry)
        yield from self._notes(entry)
        if not self.has_worker:
            yield "no worker has been seen for 10 s"

    def _identity(self, entry: WaitingEntry) -> Iterator[str]:
        digest = entry.header.digest if entry.header else self.person
        if (entry.stream.place.destination, digest) in self.renaming:
            yield "the person is being renamed; if that was stopped, give the same command again"
        elif digest != self.person:
            yield "it came under a former identity, and goes to the present one when its turn comes"

    def _gate(self, destination: str) -> Iterator[str]:
        gate = self.gates.get(destination)
        if gate and gate.state in {"paused", "broken"}:
            yield f"the destination is {gate.state}: {gate.message or gate.reason}"

    def _delays(self, entry: WaitingEntry) -> Iterator[str]:
        delays = self.delays[entry.stream.place]
        setback = delays.setbacks.get(f"{entry.stream.name}|{entry.entry_id}")
        if setback:
            why = f"was refused: {setback.refusal}" if setback.refusal else "failed"
            again = self._until(setback.not_before_ms, "tried again after")
            yield f"its last request {why} (so far {times(setback.failures)}){again}"
        wait = delays.waits.get(entry.stream.trigger)
        if wait:
            why = f": {wait.reason}" if wait.reason else ""
            again = self._until(wait.not_before_ms, "tried again after")
            tried = times(wait.attempts)
            yield f"the trigger waits, nothing went through, tried {tried}{why}{again}"

    def _notes(self, entry: WaitingEntry) -> Iterator[str]:
        header = entry.header
        own = f"{entry.stream.name}|{entry.entry_id}"
        ends = [
            note.open_until_ms
            for note in self.notes[entry.stream.place]
            for row in note.deliveries
            if header and row.digest == header.digest and row.place != own
        ]
        if ends and max(ends) > self.now_ms:
            yield (
                "a request with this person got no sure answer and may still take effect (open"
                f" note); it waits until {shown_ms(max(ends))}"
            )

    def _until(self, not_before_ms: int, what: str) -> str:
        return f", {what} {shown_ms(not_before_ms)}" if not_before_ms > self.now_ms else ""


def _paused(what: str, pause: Pause | None) -> Iterator[str]:
    if pause:
        by = f" by {pause.by}" if pause.by else ""
        since = f" since {pause.at}" if pause.at else ""
        who = f" ({by}{since})".replace("( ", "(") if by or since else ""
        yield f"the {what} is paused: {pause.reason or 'by a person'}{who}"


def _open_notes(client: Redis, place: PartitionKeys) -> Iterator[Note]:
    with redis_errors():
        ends: Any = client.hgetall(place.open)
        texts: Any = client.hmget(place.notes, list(ends)) if ends else []
    for (name, end), text in zip(ends.items(), texts, strict=True):
        if text is not None:
            yield Note.loads(name.decode(), text, int(end))
