"""`segrelay pause` and `segrelay resume`, and the first request after something was resumed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, Literal

import typer

from segrelay.ops.outcomes.reading import newest_rows
from segrelay.ops.state.acts import Acts, actor, perform
from segrelay.ops.state.opened import insist
from segrelay.ops.state.partitions import all_partitions, known_destinations
from segrelay.ops.state.waiting import find_streams
from segrelay.ops.status.standing import read_standing
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.moments import awaited, parse_seconds
from segrelay.ops.terminal.options import Timeout
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.adapters.redis.gate import read_probes, read_state, resume_gate
from segrelay.worker.contract import keys
from segrelay.worker.contract.outcomes import RETRY
from segrelay.worker.contract.redis.claim import read_refused, refusal
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Destination, Settings
from segrelay.worker.contract.triggers import (
    DESTINATION,
    TRIGGER,
    Pause,
    Paused,
    end_pause,
    field_of,
    read_pauses,
    set_pause,
)
from segrelay.worker.contract.words import LIVE
from segrelay.worker.core.gate import gate_id
from segrelay.worker.errors import UsageWrong

_LOOK_SECONDS: Final = 0.1
_TAKEN_OVER_SECONDS: Final = 5.0
"""Seconds within which a worker that is woken has taken over a changed template."""
_FAILED: Final = frozenset({RETRY, "dead"})

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
        standing = read_standing(self.client, self.settings)
        waiting = [
            one
            for name, one in standing.triggers.items()
            if one.destination == destination.name
            and (self.kind == DESTINATION or name == self.name)
            and one.counts.waiting > standing.totals.orphans[name]
        ]
        if not waiting:
            return "nothing waits; the first delivery that comes goes alone"
        condition = standing.destinations[destination.name].condition
        # One that has paused itself may have done so because of the first request.
        if condition.state == "paused" and condition.by:
            return f"its destination {destination.name} is paused"
        if all(one.condition.state in {"paused", "stopped"} for one in waiting):
            return "all that waits is of triggers that are paused or stopped"
        return standing.idle

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
        """Search the outcome log for a failure of the trigger."""
        partitions = all_partitions(self.client, self.settings, [destination.name])
        for row in newest_rows(self.client, partitions):
            is_new = row.time_ms >= self.since_ms
            if is_new and row.trigger == self.name and row.outcome in _FAILED:
                return ProbeResult("failed", row.message)
        return None


_KINDS: Final[tuple[Paused, Paused]] = (DESTINATION, TRIGGER)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DESTINATION|TRIGGER",
        help="A name; destination:NAME or trigger:NAME where both exist.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Pause all destinations.")]


@dataclass(frozen=True, slots=True)
class PauseTarget:
    """A destination or trigger that is paused or resumed."""

    kind: Paused
    name: str

    def __str__(self) -> str:
        """Return kind and name, for messages."""
        return f"{self.kind} {self.name}"


def pause(names: Names = None, *, everything: All = False, relay: Acts) -> Result:
    """Pause destinations or triggers: deliveries are still accepted, but nothing is sent."""
    known = known_names(relay.client, relay.settings)
    targets = chosen(known, names, kinds=(DESTINATION,), everything=everything)
    why = Pause(relay.why, actor(), datetime.now(UTC).isoformat(timespec="seconds"))
    done = {target: _paused(relay, target, why) for target in targets}
    lines = (
        f"{target} is paused" if is_new else f"{target} stays paused, for this reason"
        for target, is_new in done.items()
    )
    rows = [asdict(target) | {"changed": is_new} for target, is_new in done.items()]
    return Result({"paused": rows, "reason": relay.why}, *lines)


def resume(
    names: Names = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Resume all destinations, and everything that is paused.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the first request's answer.")
    ] = True,
    timeout: Timeout = "30s",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Resume also a trigger that works as it did.")
    ] = False,
    relay: Acts,
) -> Result:
    """Resume destinations or triggers: one request goes first, then the rest.

    It waits for the answer to that request and says what it was. For a destination this also ends
    what it has paused itself for: refused credentials, answers that can't be read, failures in a
    row. A trigger that paused itself because its template killed everything stays paused until
    workers have another template or configuration of it. The exit code is 1 if the first request
    failed, or if anything stays paused.
    """
    timeout_seconds = parse_seconds(timeout, "--timeout")
    client, settings = relay.client, relay.settings
    known = known_names(client, settings)
    targets = chosen(known, names, kinds=_KINDS, everything=everything)
    since_ms = now_ms(client)
    done, kept = dict[PauseTarget, bool](), list[str]()
    for one in targets:
        try:
            done[one] = _resumed(relay, one, anyway=anyway)
        except UsageWrong as error:
            kept.append(error.message)
    probes = {
        target: Probe(client, settings, target.kind, target.name, since_ms)
        for target, was_held in done.items()
        if wait and was_held
    }
    probed = {target: probe.outcome(timeout_seconds) for target, probe in probes.items()}
    stopped = {
        target: _what_stops(client, settings, target)
        for target, was_held in done.items()
        if not was_held and not everything
    }
    rows = [
        asdict(target) | {"changed": was_held, "probe": probed.get(target)}
        for target, was_held in done.items()
    ]
    failed = [target for target, probe in probed.items() if probe.outcome == "failed"]
    return Result(
        {"resumed": rows},
        *_resumed_lines(done, probed, stopped),
        notes=[
            *kept,
            *(f"{one}: correct what the message says, then resume it again." for one in failed),
        ],
        exit_code=1 if failed or kept else 0,
    )


def _paused(relay: Acts, target: PauseTarget, why: Pause) -> bool:
    """Pause a target; return False if it was paused already."""
    client, settings, act = relay.client, relay.settings, relay.act(str(target))
    refused = read_refused(client, settings) if target.kind == DESTINATION else {}
    known_as = refused.get(target.name, target.name)
    if known_as != target.name:
        raise UsageWrong(f"{refusal(target.name, known_as)}.")
    field_name = field_of(target.kind, target.name)
    return insist(lambda: set_pause(client, field_name, why, act))


def _resumed_lines(
    done: Mapping[PauseTarget, bool],
    probed: Mapping[PauseTarget, ProbeResult],
    stopped: Mapping[PauseTarget, str],
) -> Iterator[str]:
    for target, was_held in done.items():
        if was_held:
            told = f": {probed[target].message}" if target in probed else ""
            yield f"{target} is resumed{told}"
        elif target in stopped:
            yield f"{target} was not paused{stopped[target]}"
    if not stopped and done and not any(done.values()):
        yield "nothing was paused"


def _what_stops(client: Redis, settings: Settings, target: PauseTarget) -> str:
    """Return what stops a target although it is not paused, to be said behind that; "" = nothing.

    A destination whose requests could not even be made has triggers that wait or are paused.
    """
    wanted = [
        name
        for name, one in settings.triggers.items()
        if target.name == (name if target.kind == TRIGGER else one.destination)
    ]
    standing = read_standing(client, settings)
    states = {name: standing.triggers[name].condition.state for name in wanted}
    paused = [f"`segrelay resume trigger:{name}`" for name in wanted if states[name] == "paused"]
    if paused:
        return f", but triggers of it are: {', '.join(paused)}"
    return "".join(f": {one}" for one in standing.stops(wanted) if one != standing.idle)


def known_names(client: Redis, settings: Settings) -> dict[Paused, list[str]]:
    """Return the names of all destinations and triggers: configured, waiting, or paused."""
    pauses = read_pauses(client)
    waiting = find_streams(client, all_partitions(client, settings))
    destinations = {*known_destinations(client, settings), *pauses.destinations}
    triggers = {*settings.triggers, *pauses.triggers, *(stream.trigger for stream in waiting)}
    return {DESTINATION: sorted(destinations), TRIGGER: sorted(triggers)}


def chosen(
    known: dict[Paused, list[str]],
    names: Sequence[str] | None,
    *,
    kinds: Iterable[Paused],
    everything: bool,
) -> list[PauseTarget]:
    """Return the targets that the arguments name."""
    if everything == bool(names):
        raise UsageWrong("Name a destination or a trigger, or say --all.")
    if everything:
        return [PauseTarget(kind, name) for kind in kinds for name in known[kind]]
    return list(dict.fromkeys(_target(known, name) for name in names or ()))


def _target(known: dict[Paused, list[str]], written: str) -> PauseTarget:
    prefix, colon, rest = written.partition(":")
    kinds = [kind for kind in _KINDS if kind == prefix] if colon else list(_KINDS)
    name = rest if colon else written
    found = [PauseTarget(kind, name) for kind in kinds if name in known[kind]]
    if not found:
        raise UsageWrong(_unknown(known, kinds, written))
    if len(found) > 1:
        raise UsageWrong(
            f"{name} is a destination and a trigger: write destination:{name} or trigger:{name}."
        )
    return found[0]


def _unknown(known: dict[Paused, list[str]], kinds: Sequence[Paused], written: str) -> str:
    there = [name for kind in kinds or _KINDS for name in known[kind]]
    near = difflib.get_close_matches(written.rpartition(":")[2], there, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(there) or 'none'}."
    return f"There is no {' or '.join(kinds or _KINDS)} {written}. {hint}"


def _resumed(relay: Acts, target: PauseTarget, *, anyway: bool) -> bool:
    """Resume a target; return whether a pause or its gate had stopped it.

    The gate is opened first, so that no request overtakes the probe. The act is kept before,
    because the gate is in another slot than the acts.

    Raises:
        UsageWrong: A trigger that paused itself works as it did then.
    """
    client, settings, name = relay.client, relay.settings, target.name
    trigger = settings.triggers.get(name) if target.kind == TRIGGER else None
    destination = settings.destinations.get(trigger.destination if trigger else name)
    gate = gate_id(destination.base_url, destination.gate_scope) if destination else ""
    pause = read_pauses(client).of(target.kind).get(name)
    is_destination = target.kind == DESTINATION and destination is not None
    was_held = is_destination and read_state(client, gate).state in {"paused", "broken"}
    if trigger and pause and pause.edition and not anyway:
        # A drain begins with a look at the templates.
        CeleryWaker(settings).wake(trigger.destination, 0, queue=LIVE)
        fingerprint, edition = partial(client.hget, keys.FINGERPRINTS, name), pause.edition.encode()
        awaited(lambda: fingerprint() != edition, _TAKEN_OVER_SECONDS, _LOOK_SECONDS)

    def resumed() -> bool:
        if is_destination or (trigger and pause):
            resume_gate(client, gate, trigger="" if is_destination else name)
        ended = end_pause(client, target.kind, name, anyway=anyway)
        if ended is None:
            template = settings.triggers[name].main_template if name in settings.triggers else name
            raise UsageWrong(
                f"{target} stays paused: workers still use the template and the configuration of"
                f" which everything died. Correct {template} (`segrelay template check {template}`)"
                " and resume it once a worker has it, or say --anyway."
            )
        return ended or pause is not None or was_held

    if pause or was_held:
        return perform(client, relay.act(str(target)), lambda _: resumed(), is_counted=False)
    return insist(resumed)
