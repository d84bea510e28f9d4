"""Rendering the events of a file, a dead letter, or a person with waiting deliveries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ops.state.opened import opened
from ops.templates.trying.events import from_file, is_letter, of_letter, of_person
from ops.templates.workspace import Workspace
from worker.checks.rehearsal import Candidate, Rehearsed, rehearse_rendering, rehearse_template
from worker.checks.samples import entry_of, load_profiles
from worker.contract.settings import Trigger
from worker.errors import UsageWrong


def rehearse_named(
    workspace: Workspace, template: str, what: str, trigger: str, given: Mapping[str, Any] | None
) -> list[Rehearsed]:
    """Render the named events, and shape them if a trigger is known.

    Args:
        workspace: The folder of the templates, with its configuration.
        template: The path below that folder.
        what: A file, the id of a dead letter, or the identity of a person.
        trigger: A trigger's name; "" = the one that uses the template, by the event's direction.
        given: Settings instead of the trigger's; with them nothing is shaped.

    Raises:
        UsageWrong: There is no such thing.
        TemplateBroken: The template does not load.
    """
    if workspace.settings is None or (given is not None and not trigger):
        return _rendered(workspace, template, Path(what), given or {})
    chosen = [workspace.trigger(trigger)] if trigger else workspace.triggers(template)
    if Path(what).is_file():
        return _of_file(workspace, template, Path(what), chosen)
    return _of_redis(workspace, template, what, chosen)


def _rendered(
    workspace: Workspace, template: str, path: Path, given: Mapping[str, Any]
) -> list[Rehearsed]:
    profiles = load_profiles(path)
    named = [(f"event {n}", orjson.dumps(one)) for n, one in enumerate(profiles, 1)]
    return rehearse_rendering(workspace.folder, template, named, given)


def _of_file(
    workspace: Workspace, template: str, path: Path, chosen: list[Trigger]
) -> list[Rehearsed]:
    assert workspace.settings is not None
    ways = {entry_of(profile).get("event") for profile in load_profiles(path)}
    fitting = {one.on: one for one in reversed(chosen) if one.on in ways}
    if not fitting:
        if len(chosen) == 1:
            from_file(path, chosen[0], workspace.settings, now_us=_now_us())
        return _rendered(workspace, template, path, {})
    outcomes: list[Rehearsed] = []
    for one in fitting.values():
        found = from_file(path, one, workspace.settings, now_us=_now_us())
        outcomes += rehearse_template(
            found, one, workspace.settings, template=template, now_us=_now_us()
        )
    return outcomes


def _of_redis(
    workspace: Workspace, template: str, what: str, chosen: list[Trigger]
) -> list[Rehearsed]:
    if "/" in what or what.endswith((".json", ".ndjson")):
        raise UsageWrong(f"{what}: can't be read (No such file or directory).")
    with opened() as (settings, client):
        found = (
            [of_letter(client, settings, what)]
            if is_letter(what)
            else of_person(client, settings, what)
        )
    outcomes: list[Rehearsed] = []
    for candidate in found:
        one = _trigger_for(candidate, workspace, chosen)
        outcomes += rehearse_template(
            [candidate], one, settings, template=template, now_us=_now_us()
        )
    return outcomes


def _trigger_for(candidate: Candidate, workspace: Workspace, chosen: list[Trigger]) -> Trigger:
    """Return the trigger for an event of Redis: its own, or the one that was named."""
    assert workspace.settings is not None
    own = workspace.settings.triggers.get(candidate.trigger)
    if own is not None and (not chosen or own in chosen):
        return own
    if chosen:
        return chosen[0]
    raise UsageWrong(
        f"The event is one of {candidate.trigger}, which the configuration does not have; name"
        " another by --trigger."
    )


def _now_us() -> int:
    return time.time_ns() // 1_000
