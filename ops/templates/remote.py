"""`segrelay template push` and `remote`: templates at Lytics, which returns no source of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from segrelay.jsonnet.files import TemplateFolder, shown
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.templates.check import check_template
from segrelay.ops.templates.workspace import (
    TemplateArgument,
    Workspace,
    full_name,
    names_in,
    workspace_of,
)
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.producer.lytics import LyticsApi
from segrelay.templates import LYTEMPLATES, LYTICS_TYPES
from segrelay.worker.checks.preview import Previewed, load_profiles, preview_rendering, sample_row
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import LyticsUnavailable, UsageWrong


def opened_api(settings: Settings) -> LyticsApi:
    """Return a client of Lytics' API."""
    if settings.lytics is None:
        raise UsageWrong("[lytics] is missing in the configuration: it has the token for this.")
    return LyticsApi(settings.lytics)


def remote_name(template: str) -> str:
    """Return the name under which a template is known at Lytics."""
    return str(PurePosixPath(template).with_suffix("")).replace("/", "-")


def source_for_lytics(folder: TemplateFolder, template: str) -> str:
    """Return the text of a template that Lytics can render."""
    bundle = folder.bundle(template)
    imported = bundle.files[bundle.root].imports
    ours = sorted(shown(target) for _, target in imported if target != LYTEMPLATES.name)
    if ours:
        raise UsageWrong(
            f"{template} imports {', '.join(ours)}: Lytics keeps single templates and knows only"
            " lytemplates.libsonnet. Put what it needs of these into the template."
        )
    return bundle.files[bundle.root].text


def find_remote(api: LyticsApi, name: str, kind: str) -> str:
    """Return the id of a template at Lytics; "" = there is none of that name.

    The type of one that is there can't be changed.
    """
    found = [one for one in api.list_templates() if one.get("name") == name]
    ids = [str(one.get("id", "")) for one in found]
    if other := next((one["type"] for one in found if one.get("type", kind) != kind), ""):
        raise UsageWrong(
            f"Lytics has a template {name} of the type {other}, and this one is {kind}: name it"
            " otherwise with --as, or remove the other there."
        )
    if len(ids) > 1:
        raise UsageWrong(
            f"Lytics has {len(ids)} templates of the name {name} ({', '.join(ids)}): it can't be"
            " known which is meant; remove the others there."
        )
    return ids[0] if ids else ""


def _rendered_there(
    api: LyticsApi, name: str, known: str, profile: Mapping[str, Any], settings: Mapping[str, Any]
) -> Any:
    """Return what Lytics makes of an event with a template; it answers 200 in any case."""
    entries = profile.get("segment_events") or []
    slugs = [str(each.get("slug")) for each in entries if isinstance(each, dict)]
    request = {"job_config": dict(settings), "entity": dict(profile), "sample_segments": slugs}
    try:
        return json_or_text(api.test_template(known, request))
    except LyticsUnavailable as error:
        raise LyticsUnavailable(
            f"{error.message} If {name} was put there otherwise than by this version's"
            " `segrelay template push`, push it again: Lytics can't test it as it is."
        ) from error


def _problem(theirs: Any, ours: Previewed) -> str:
    """Say how Lytics' result differs from segrelay's, or that it failed there; "" = neither."""
    if ours.rendering != "rendered":
        if isinstance(theirs, str):
            return f"Lytics does not render it either, although it answers 200: {theirs}"
        return f"Lytics renders it; here it is {ours.rendering}: {ours.message}"
    if theirs == ours.body:
        return ""
    if isinstance(theirs, str) and not isinstance(ours.body, str):
        return f"Lytics answers 200, but the template failed there: {theirs}"
    return "Lytics renders something else than segrelay."


remote = typer.Typer()


def push_(
    template: TemplateArgument,
    *,
    name: Annotated[
        str, typer.Option("--as", help="Its name at Lytics; else made of its path.", metavar="NAME")
    ] = "",
    description: Annotated[str, typer.Option(help="What Lytics shows beside it.")] = "",
) -> Result:
    """Put a template into the account at Lytics, or replace it there.

    It is checked first. Lytics keeps single templates: one that imports other files than
    lytemplates.libsonnet is refused. There are no versions there: git has yours.
    """
    workspace, settings = _configured()
    file = full_name(template, workspace.folder)
    source = source_for_lytics(TemplateFolder(workspace.folder, LYTEMPLATES), file)
    report = check_template(workspace.folder, file, workspace.cases(file))
    if not report.is_fit:
        said = "; ".join(one.message for one in report.findings if one.severity == "error")
        raise TemplateBroken(f"{file} is not fit, and was not pushed: {said}", file)
    name = name or remote_name(file)
    with opened_api(settings) as api:
        kind = LYTICS_TYPES[PurePosixPath(file).suffix]
        known = find_remote(api, name, kind)
        if known:
            api.update_template(known, source, description=description)
        to = known or api.create_template(name, source, kind=kind, description=description)
    return Result(
        {"name": name, "id": to, "created": not known},
        f"{name} is {'replaced' if known else 'created'} at Lytics: {to}",
        notes=[f"Try it there: segrelay template remote test {template} samples/enter.json"],
    )


def _configured() -> tuple[Workspace, Settings]:
    workspace = workspace_of(None)
    assert workspace.settings is not None
    return workspace, workspace.settings


@remote.command("list")
def list_() -> Result:
    """Show the templates of the account; Lytics does not tell their sources."""
    workspace, settings = _configured()
    with opened_api(settings) as api:
        found = api.list_templates()
    ours = {remote_name(name): name for name in names_in(workspace.folder)}
    rows = [
        {key: str(one.get(key) or "") for key in ("name", "id", "type", "description")}
        | {"here": ours.get(str(one.get("name")), "")}
        for one in found
    ]
    cells = [(r["name"], r["id"], r["type"], r["here"] or "-", r["description"]) for r in rows]
    columns: TableColumns = ("name", "id", "type", "here", *text_columns("description"))
    return Result({"templates": rows}, Table(columns, cells))


@remote.command("test")
def try_there_(
    template: TemplateArgument,
    file: Annotated[Path, typer.Argument(help="A payload, or an array of them, as JSON.")],
    *,
    name: Annotated[
        str, typer.Option("--as", help="Its name at Lytics; else made of its path.", metavar="NAME")
    ] = "",
) -> Result:
    """Have Lytics render events with a template that was pushed, and compare.

    Lytics answers 200 also where a template throws; here that is a failure. The exit code is 1 if
    Lytics fails, or makes something else of an event.
    """
    workspace, settings = _configured()
    here = full_name(template, workspace.folder)
    given = next((dict(one.settings) for one in workspace.triggers(here)), {})
    profiles = load_profiles(file)
    rendered = preview_rendering(
        workspace.folder, here, [sample_row(one, given) for one in profiles]
    )
    documents = []
    name = name or remote_name(here)
    with opened_api(settings) as api:
        known = find_remote(api, name, LYTICS_TYPES[PurePosixPath(here).suffix])
        if not known:
            raise UsageWrong(
                f"Lytics has no template {name}; `segrelay template push` puts it there."
            )
        for profile, ours in zip(profiles, rendered, strict=True):
            theirs = _rendered_there(api, name, known, profile, given)
            problem = _problem(theirs, ours)
            told = {"event": ours.name, "same": not problem, "problem": problem}
            documents.append(told | {"theirs": theirs, "ours": ours.body})
    lines = (f"{one['event']}: {one['problem'] or 'Lytics renders the same.'}" for one in documents)
    are_same = all(one["same"] for one in documents)
    return Result({"events": documents}, *lines, exit_code=0 if are_same else 1)
