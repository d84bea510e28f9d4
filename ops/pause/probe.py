"""The outcome of the first request after a destination or trigger is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import orjson
from redis import Redis

from ops.state.partitions import all_partitions, ask_each
from ops.state.waiting import Choice, find_streams, is_orphan
from ops.terminal.moments import awaited
from worker.adapters.redis.addresses import former_names, read_renamed
from worker.adapters.redis.gate import read_probes, read_state
from worker.contract.processes.workers import read_processes
from worker.contract.settings import Destination, Settings
from worker.contract.triggers.pauses import DESTINATION, Paused, read_pauses
from worker.core.gate import gate_id

_LOOK_SECONDS: Final = 0.1
_FAILED: Final = frozenset({"retry", "dead"})
_NEWEST: Final = 50
"""The newest lines of each partition's history that are searched for a failure."""

ProbeOutcome = Literal["taken", "failed", "not_sent"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of the first request after something was resumed."""

    outcome: ProbeOutcome
    message: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Waits for the first request of a destination or trigger that was resumed."""

    client: Redis
    settings: Settings
    kind: Paused
    name: str
    since_ms: int

    def outcome(self, timeout_seconds: float) -> ProbeResult:
        """Wait for the first request and return its outcome."""
        destination = self._destination()
        if destination is None:
            return ProbeResult("not_sent", "the configuration does not name it, so nothing is sent")
        why_not = self._why_nothing_goes(destination)
        if why_not:
            return ProbeResult("not_sent", why_not)
        found = awaited(lambda: self._seen(destination), timeout_seconds, _LOOK_SECONDS)
        return found or ProbeResult(
            "not_sent",
            f"no request has gone for {timeout_seconds:.0f} s: `segrelay status` tells what waits"
            " for what",
        )

    def _destination(self) -> Destination | None:
        if self.kind == DESTINATION:
            return self.settings.destinations.get(self.name)
        trigger = self.settings.triggers.get(self.name)
        return self.settings.destinations[trigger.destination] if trigger else None

    def _why_nothing_goes(self, destination: Destination) -> str:
        places = all_partitions(self.client, self.settings, [destination.name])
        choice = Choice() if self.kind == DESTINATION else Choice(trigger=self.name)
        pauses = read_pauses(self.client)
        waiting = {
            stream.trigger
            for stream in find_streams(self.client, places, choice)
            if stream.length and not is_orphan(self.settings, stream.place, stream.trigger)
        }
        if not waiting:
            return self._where_it_waits(destination) or (
                "nothing waits; the first delivery that comes goes alone"
            )
        if destination.name in pauses.destinations:
            return f"its destination {destination.name} is paused"
        if waiting <= pauses.triggers.keys():
            return "all that waits is of triggers that are paused"
        processes = read_processes(self.client)
        if not processes:
            return "no worker has been seen for 10 s: `segrelay up`, or `segrelay worker`"
        if all(one.config != self.settings.fingerprint for one in processes):
            names = ", ".join(f"{one.host}:{one.pid}" for one in processes)
            return f"all workers were started with another configuration ({names}): restart them"
        return ""

    def _where_it_waits(self, destination: Destination) -> str:
        """Return a message if deliveries wait under a former name of the destination, else ""."""
        formers = [old for old, new in read_renamed(self.client).items() if new == destination.name]
        former = former_names(self.client, self.settings).get(destination.name)
        for old in [*formers, *([former] if former else [])]:
            places = all_partitions(self.client, self.settings, [old])
            count = sum(stream.length for stream in find_streams(self.client, places))
            if count:
                return (
                    f"{count:,} deliveries wait under its former name {old}:"
                    f" `segrelay destination rename {old} {destination.name}`"
                )
        return ""

    def _seen(self, destination: Destination) -> ProbeResult | None:
        name = gate_id(destination.base_url, destination.gate_scope)
        gate, probes = read_state(self.client, name), read_probes(self.client, name)
        if gate.state in {"paused", "broken"}:
            return ProbeResult("failed", f"{gate.state} again: {gate.message or gate.reason}")
        if self.kind == DESTINATION:
            return None if probes.for_all else ProbeResult("taken", "the first request was taken")
        if self.name not in probes.triggers:
            return ProbeResult("taken", "the first request was taken")
        return self._failure(destination)

    def _failure(self, destination: Destination) -> ProbeResult | None:
        """Search the history for a failure of the trigger."""
        answers = ask_each(
            self.client,
            all_partitions(self.client, self.settings, [destination.name]),
            lambda pipe, place: pipe.xrevrange(place.history, "+", self.since_ms, count=_NEWEST),
        )
        for rows in answers:
            for _, fields in rows:
                _, _, _, trigger, _, _, outcome, remark = orjson.loads(fields[b"e"])
                if trigger == self.name and outcome in _FAILED:
                    return ProbeResult("failed", remark)
        return None
