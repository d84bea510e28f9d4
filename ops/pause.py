"""`segrelay pause` and `segrelay resume`, and the first request after something was resumed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, Literal, NamedTuple

import typer

from segrelay.ops.outcomes import newest_rows
from segrelay.ops.state.opened import Acts, actor, insist, perform
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


_STOPPED: Final = frozenset({"paused", "broken"})
_KINDS: Final[tuple[Paused, Paused]] = (DESTINATION, TRIGGER)


class PauseTarget(NamedTuple):
    """A destination or trigger that is paused or resumed."""

    kind: Paused
    name: str

    def __str__(self) -> str:
        """Return kind and name, for messages."""
        return f"{self.kind} {self.name}"

    def destination(self, settings: Settings) -> Destination | None:
        """Return the destination that it is or sends to; None if the configuration has it not."""
        trigger = settings.triggers.get(self.name) if self.kind == TRIGGER else None
        known = self.kind == DESTINATION or trigger
        name = trigger.destination if trigger else self.name
        return settings.destinations.get(name) if known else None


class ProbeResult(NamedTuple):
    """The outcome of the first request after something was resumed."""

    outcome: Literal["taken", "failed", "not_sent"]
    message: str


def first_request(
    relay: Acts, target: PauseTarget, since_ms: int, timeout_seconds: float
) -> ProbeResult:
    """Wait for the first request after something was resumed, and return its outcome."""
    client, settings = relay.client, relay.settings
    destination = target.destination(settings)
    if destination is None:
        return ProbeResult("not_sent", "the configuration does not name it, so nothing is sent")
    why_not = _why_nothing_goes(relay, target, destination.name)
    if why_not:
        return ProbeResult("not_sent", why_not)
    gate_name = gate_id(destination.base_url, destination.gate_scope)
    partitions = all_partitions(client, settings, [destination.name])

    def look() -> ProbeResult | None:
        gate, probes = read_state(client, gate_name), read_probes(client, gate_name)
        if gate.state in _STOPPED:
            return ProbeResult("failed", f"{gate.state} again: {gate.message or gate.reason}")
        is_trigger = target.kind == TRIGGER
        if not (target.name in probes.triggers if is_trigger else probes.for_all):
            return ProbeResult("taken", "the first request was taken")
        for row in newest_rows(client, partitions) if is_trigger else ():
            is_new = row.time_ms >= since_ms
            if is_new and row.trigger == target.name and row.outcome in _FAILED:
                return ProbeResult("failed", row.message)
        return None

    return awaited(look, timeout_seconds, _LOOK_SECONDS) or ProbeResult(
        "not_sent",
        f"no request has gone for {timeout_seconds:.0f} s: `segrelay status` tells what waits"
        " for what",
    )


def _why_nothing_goes(relay: Acts, target: PauseTarget, destination: str) -> str:
    standing = read_standing(relay.client, relay.settings)
    waiting = [
        one
        for name, one in standing.triggers.items()
        if one.destination == destination
        and (target.kind == DESTINATION or name == target.name)
        and one.counts.waiting > standing.totals.orphans[name]
    ]
    if not waiting:
        return "nothing waits; the first delivery that comes goes alone"
    condition = standing.destinations[destination].condition
    # One that has paused itself may have done so because of the first request.
    if condition.state == "paused" and condition.by:
        return f"its destination {destination} is paused"
    if all(one.condition.state in {"paused", "stopped"} for one in waiting):
        return "all that waits is of triggers that are paused or stopped"
    return standing.idle


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DESTINATION|TRIGGER",
        help="A name; destination:NAME or trigger:NAME where both exist.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Pause all destinations.")]


def pause(names: Names = None, *, everything: All = False, relay: Acts) -> Result:
    """Pause destinations or triggers: deliveries are still accepted, but nothing is sent."""
    targets = chosen(relay, names, (DESTINATION,), everything=everything)
    why = Pause(relay.why, actor(), datetime.now(UTC).isoformat(timespec="seconds"))
    done = {}
    for target in targets:
        refused = read_refused(relay.client, relay.settings)
        known_as = refused.get(target.name, target.name)
        if target.kind == DESTINATION and known_as != target.name:
            raise UsageWrong(f"{refusal(target.name, known_as)}.")
        set_it = partial(set_pause, relay.client, field_of(*target), why, relay.act(str(target)))
        done[target] = insist(set_it)
    lines = (
        f"{target} is paused" if is_new else f"{target} stays paused, for this reason"
        for target, is_new in done.items()
    )
    rows = [target._asdict() | {"changed": is_new} for target, is_new in done.items()]
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
    targets = chosen(relay, names, _KINDS, everything=everything)
    since_ms = now_ms(client)
    done, kept = dict[PauseTarget, bool](), list[str]()
    for one in targets:
        try:
            done[one] = _resumed(relay, one, anyway=anyway)
        except UsageWrong as error:
            kept.append(error.message)
    probed = {
        target: first_request(relay, target, since_ms, timeout_seconds)
        for target, was_held in done.items()
        if wait and was_held
    }
    stopped = {
        target: _what_stops(client, settings, target)
        for target, was_held in done.items()
        if not was_held and not everything
    }
    rows = [
        target._asdict()
        | {"changed": was_held, "probe": probed[target]._asdict() if target in probed else None}
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


def chosen(
    relay: Acts, names: Sequence[str] | None, kinds: Iterable[Paused], *, everything: bool
) -> list[PauseTarget]:
    """Return the targets that the arguments name, of those configured, waiting, or paused."""
    if everything == bool(names):
        raise UsageWrong("Name a destination or a trigger, or say --all.")
    client, settings = relay.client, relay.settings
    pauses, waiting = read_pauses(client), find_streams(client, all_partitions(client, settings))
    destinations = {*known_destinations(client, settings), *pauses.destinations}
    triggers = {*settings.triggers, *pauses.triggers, *(stream.trigger for stream in waiting)}
    known: dict[Paused, list[str]] = {
        DESTINATION: sorted(destinations), TRIGGER: sorted(triggers)
    }  # fmt: skip
    if everything:
        return [PauseTarget(kind, name) for kind in kinds for name in known[kind]]
    return list(dict.fromkeys(_target(known, name) for name in names or ()))


def _target(known: Mapping[Paused, list[str]], written: str) -> PauseTarget:
    prefix, colon, rest = written.partition(":")
    kinds = [kind for kind in _KINDS if kind == prefix] if colon else list(_KINDS)
    name = rest if colon else written
    found = [PauseTarget(kind, name) for kind in kinds if name in known[kind]]
    if len(found) > 1:
        raise UsageWrong(
            f"{name} is a destination and a trigger: write destination:{name} or trigger:{name}."
        )
    if not found:
        there = [each for kind in kinds or _KINDS for each in known[kind]]
        near = difflib.get_close_matches(written.rpartition(":")[2], there, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(there) or 'none'}."
        raise UsageWrong(f"There is no {' or '.join(kinds or _KINDS)} {written}. {hint}")
    return found[0]


def _resumed(relay: Acts, target: PauseTarget, *, anyway: bool) -> bool:
    """Resume a target; return whether a pause or its gate had stopped it.

    The gate is opened first, so that no request overtakes the probe. The act is kept before,
    because the gate is in another slot than the acts.

    Raises:
        UsageWrong: A trigger that paused itself works as it did then.
    """
    client, settings, name = relay.client, relay.settings, target.name
    trigger = settings.triggers.get(name) if target.kind == TRIGGER else None
    destination = target.destination(settings)
    gate = gate_id(destination.base_url, destination.gate_scope) if destination else ""
    pause = read_pauses(client).of(target.kind).get(name)
    is_destination = target.kind == DESTINATION and destination is not None
    was_held = is_destination and read_state(client, gate).state in _STOPPED
    if trigger and pause and pause.edition and not anyway:
        # A drain begins with a look at the templates.
        CeleryWaker(settings).wake([(trigger.destination, 0)], queue=LIVE)
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
