"""Templates at Lytics, which returns no source and keeps no versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ops.templates.workspace import SUFFIX
from ops.terminal.console import json_or_text
from producer.lytics import LyticsApi
from worker.checks.rehearsal import Rehearsed
from worker.contract.settings import Settings
from worker.errors import LyticsUnavailable, UsageWrong
from worker.jsonnet.files import LIBRARY_NAME, TemplateFolder, shown


@dataclass(frozen=True, slots=True)
class Pushed:
    """A template that is at Lytics now.

    Args:
        created: It was not there before.
    """

    name: str
    template_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """The rendering of an event by Lytics, compared with ours.

    Args:
        problem: The difference or failure; "" = none. Lytics answers 200 in any case.
    """

    problem: str
    theirs: Any


def opened_api(settings: Settings) -> LyticsApi:
    """Return a client of Lytics' API."""
    if settings.lytics is None:
        raise UsageWrong("[lytics] is missing in the configuration: it has the token for this.")
    return LyticsApi(settings.lytics)


def remote_name(template: str) -> str:
    """Return the name under which a template is known at Lytics."""
    return template.removesuffix(SUFFIX).replace("/", "-")


def source_for_lytics(folder: TemplateFolder, template: str) -> str:
    """Return the text of a template that Lytics can render.

    Raises:
        TemplateBroken: It does not load.
    """
    bundle = folder.bundle(template)
    library = {name for name in bundle.files if name.startswith("lib:/")}
    own = [name for name in bundle.files if name not in library and name != bundle.root]
    ours = sorted(
        shown(target)
        for name in (bundle.root, *own)
        for _, target in bundle.files[name].imports
        if target != LIBRARY_NAME
    )
    if ours:
        raise UsageWrong(
            f"{template} imports {', '.join(ours)}: Lytics keeps single templates and knows only"
            " lytemplates.libsonnet. Put what it needs of these into the template."
        )
    return bundle.files[bundle.root].text


def find_remote(api: LyticsApi, name: str) -> str:
    """Return the id of a template at Lytics; "" = there is none of that name."""
    ids = [str(one.get("id", "")) for one in api.list_templates() if one.get("name") == name]
    if len(ids) > 1:
        raise UsageWrong(
            f"Lytics has {len(ids)} templates of the name {name} ({', '.join(ids)}): it can't be"
            " known which is meant; remove the others there."
        )
    return ids[0] if ids else ""


def push(api: LyticsApi, name: str, source: str, description: str) -> Pushed:
    """Create a template, or replace its source."""
    known = find_remote(api, name)
    if known:
        api.update_template(known, source, description=description)
        return Pushed(name, known, created=False)
    return Pushed(name, api.create_template(name, source, description=description), created=True)


def try_there(
    api: LyticsApi,
    name: str,
    profile: Mapping[str, Any],
    settings: Mapping[str, Any],
    ours: Rehearsed,
) -> RemoteResult:
    """Have Lytics render an event, and compare the result with ours (`ours`)."""
    known = find_remote(api, name)
    if not known:
        raise UsageWrong(f"Lytics has no template {name}; `segrelay template push` puts it there.")
    entries = profile.get("segment_events") or []
    slugs = [str(each.get("slug")) for each in entries if isinstance(each, dict)]
    request = {"job_config": dict(settings), "entity": dict(profile), "sample_segments": slugs}
    try:
        theirs = json_or_text(api.test_template(known, request))
    except LyticsUnavailable as error:
        raise LyticsUnavailable(
            f"{error.message} If {name} was put there otherwise than by this version's"
            " `segrelay template push`, push it again: Lytics can't test it as it is."
        ) from error
    return RemoteResult(_problem(theirs, ours), theirs)


def _problem(theirs: Any, ours: Rehearsed) -> str:
    if theirs == ours.body and ours.rendering == "rendered":
        return ""
    if isinstance(theirs, str) and not (
        ours.rendering == "rendered" and isinstance(ours.body, str)
    ):
        if ours.rendering != "rendered":
            return f"Lytics does not render it either, although it answers 200: {theirs}"
        return f"Lytics answers 200, but the template failed there: {theirs}"
    if ours.rendering != "rendered":
        return f"Lytics renders it; here it is {ours.rendering}: {ours.message}"
    return "Lytics renders something else than segrelay."
