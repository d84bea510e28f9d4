"""`segrelay pause` and `segrelay resume`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, NamedTuple

import typer

from segrelay.ops.state.opened import Acts, actor, insist, perform
from segrelay.ops.state.partitions import all_partitions, known_destinations
from segrelay.ops.state.waiting import find_streams
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.moments import awaited
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.adapters.redis.gate import read_state, resume_gate
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.claim import read_refused, refusal
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
_STOPPED: Final = frozenset({"paused", "broken"})
_KINDS: Final[tuple[Paused, Paused]] = (DESTINATION, TRIGGER)


class PauseTarget(NamedTuple):
    """A destination or trigger that is paused or resumed."""

    kind: Paused
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


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
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Resume also a trigger that works as it did.")
    ] = False,
    relay: Acts,
) -> Result:
    """Resume destinations or triggers: one request goes first, then the rest.

    `segrelay status` says what became of that request. For a destination this also ends what it has
    paused itself for: refused credentials, answers that can't be read, failures in a row. A trigger
    that paused itself because its template killed everything stays paused until workers have
    another template or configuration of it. The exit code is 1 if anything stays paused.
    """
    done, kept = dict[PauseTarget, bool](), list[str]()
    for one in chosen(relay, names, _KINDS, everything=everything):
        try:
            done[one] = _resumed(relay, one, anyway=anyway)
        except UsageWrong as error:
            kept.append(error.message)
    lines = [
        f"{target} is resumed" if was_held else f"{target} was not paused"
        for target, was_held in done.items()
        if was_held or not everything
    ]
    if not lines and not kept:
        lines = ["nothing was paused"]
    goes_first = "One request goes first: `segrelay status` says what becomes of it."
    rows = [target._asdict() | {"changed": was_held} for target, was_held in done.items()]
    return Result(
        {"resumed": rows},
        *lines,
        notes=[*kept, *([goes_first] if any(done.values()) else [])],
        exit_code=1 if kept else 0,
    )


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
    destination = settings.destinations.get(trigger.destination if trigger else name)
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
