"""`segrelay template`: list, write, check and push templates; Lytics returns no source to pull."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

import typer

from segrelay.jsonnet.engines.judge import judges
from segrelay.jsonnet.files import TemplateFolder, shown
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.templates.check import TemplateReport, check_template, checked
from segrelay.ops.templates.render import diff, render
from segrelay.ops.templates.workspace import (
    Folder,
    TemplateArgument,
    Workspace,
    full_name,
    run_cases,
    shipped_models,
    workspace_of,
    write_new,
)
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.options import Strict
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.producer.lytics import LyticsApi
from segrelay.templates import LYTEMPLATES, LYTICS_TYPES
from segrelay.worker.checks.preview import Previewed, load_profiles, preview_rendering, sample_row
from segrelay.worker.errors import LyticsUnavailable, UsageWrong, WeMustAct

app = typer.Typer(help="Write, try, test, check, compare and push templates.")

_NOTHING_COMPARED: Final = (
    "The templates were compared with no other engine: neither jsonnet nor gojsonnet is installed"
    " here. `pip install gojsonnet` adds one; everything else works without."
)


@app.command("list")
def list_(*, templates: Folder = None) -> Result:
    """Show the templates, and the triggers that use them."""
    workspace = workspace_of(templates)
    rows = [_row(workspace, name) for name in workspace.names()]
    cells = [(r["template"], r["version"] or "-", ", ".join(r["triggers"]) or "-") for r in rows]
    columns: TableColumns = ("template", "version", *text_columns("used by"))
    return Result({"templates": rows}, Table(columns, cells))


def _row(workspace: Workspace, name: str) -> dict[str, Any]:
    users = workspace.users(name)
    # Triggers that make their URL by a template, too, have one version of all, as `status` says.
    whole = (
        {_version(workspace, workspace.settings.template_of(one)) for one in users}
        if workspace.settings
        else set()
    )
    return {
        "template": name,
        "version": ", ".join(sorted(whole)) or _version(workspace, name),
        "triggers": [one.name for one in users],
    }


def _version(workspace: Workspace, name: str) -> str:
    try:
        return TemplateFolder(workspace.folder, LYTEMPLATES).bundle(name).content_hash
    except TemplateBroken:
        return ""


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Below the templates folder; NAME.js is one in JavaScript.")
    ],
    *,
    model: Annotated[
        str,
        typer.Option(
            "--from",
            help="Copy this shipped template instead, such as insider/enter.",
            metavar="MODEL",
        ),
    ] = "",
    api: Annotated[
        Literal["insider", "http"] | None,
        typer.Option(help="The kind of its destination.  [default: insider]"),
    ] = None,
    templates: Folder = None,
) -> Result:
    """Write a template to begin with; it has comments and passes `check`."""
    workspace = workspace_of(templates)
    if api and model:
        raise UsageWrong("--from names a template of one API already; leave --api out.")
    path = write_new(workspace.folder, name, model, api=api or "insider")
    check = f"segrelay template check {path.relative_to(workspace.folder)}"
    return Result(
        {"file": str(path), "models": shipped_models()},
        f"{path} is written.",
        notes=[f"Look at it, then: {check}"],
    )


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Below the templates folder; all by default.", metavar="[TEMPLATE]..."),
    ] = None,
    *,
    templates: Folder = None,
    strict: Strict = False,
) -> Result:
    """Parse templates, render samples, and compare the engines.

    The exit code is 0 if all templates are fit, and 2 if one does not load, fails for every sample,
    or means something else to another engine; with --strict, also if there are warnings. A template
    that triggers use is rendered with their settings and samples, any other with a sample of each
    direction.
    """
    workspace = workspace_of(templates)
    found = [checked(workspace, name) for name in workspace.names(names or ())]
    compared_with = judges()
    is_fit = all(one.is_fit and not (strict and one.findings) for one in found)
    documents = [
        {"template": one.template, "fit": one.is_fit, **asdict(one), "compiled": one.is_compiled}
        for one in found
    ]
    return Result(
        {"templates": documents, "compared_with": compared_with},
        *(line for one in found for line in _lines(one)),
        notes=_notes(found, compared_with),
        exit_code=0 if is_fit else WeMustAct.exit_code,
    )


def _lines(report: TemplateReport) -> Iterator[str]:
    yield f"{report.template}: {'fit' if report.is_fit else 'not fit'}"
    for label, words in report.renders.items():
        yield f"  {label}: {words}"
    if report.not_compiled:
        yield f"  not compiled to Python, so several times slower, for {report.not_compiled}"
    elif report.is_compiled:
        yield "  compiled to Python"


def _notes(found: Sequence[TemplateReport], compared_with: Collection[str]) -> Iterator[str]:
    """Yield the findings as compilers write them, `file:line:column: severity: what; hint`."""
    for one in (finding for report in found for finding in report.findings):
        place = f"{one.file}:{one.line}:{one.column}" if one.line else one.file
        yield f"{place}: {one.severity}: {one.message}"
    if not compared_with and any(one.language == "Jsonnet" for one in found):
        yield _NOTHING_COMPARED


def _configured() -> tuple[Workspace, LyticsApi]:
    """Return the configured workspace, and a client of Lytics' API."""
    workspace = workspace_of(None)
    if workspace.settings is None or workspace.settings.lytics is None:
        raise UsageWrong("[lytics] is missing in the configuration: it has the token for this.")
    return workspace, LyticsApi(workspace.settings.lytics)


def _remote_name(template: str) -> str:
    """Return the name under which a template is known at Lytics."""
    return str(PurePosixPath(template).with_suffix("")).replace("/", "-")


def _source_for_lytics(folder: TemplateFolder, template: str) -> str:
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


def _find_remote(api: LyticsApi, name: str, kind: str) -> str:
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


app.command()(render)
app.command("test")(run_cases)
app.command()(diff)
remote = typer.Typer()
app.add_typer(remote, name="remote", help="Try the templates at Lytics.")


@app.command()
def push(
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
    workspace, client = _configured()
    file = full_name(template, workspace.folder)
    source = _source_for_lytics(TemplateFolder(workspace.folder, LYTEMPLATES), file)
    report = check_template(workspace.folder, file, workspace.cases(file))
    if not report.is_fit:
        said = "; ".join(one.message for one in report.findings if one.severity == "error")
        raise TemplateBroken(f"{file} is not fit, and was not pushed: {said}", file)
    name, kind = name or _remote_name(file), LYTICS_TYPES[PurePosixPath(file).suffix]
    with client as api:
        known = _find_remote(api, name, kind)
        if known:
            api.update_template(known, source, description=description)
        to = known or api.create_template(name, source, kind=kind, description=description)
    return Result(
        {"name": name, "id": to, "created": not known},
        f"{name} is {'replaced' if known else 'created'} at Lytics: {to}",
        notes=[f"Try it there: segrelay template remote test {template} samples/enter.json"],
    )


@remote.command("test")
def try_there(
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
    workspace, client = _configured()
    here = full_name(template, workspace.folder)
    given = next((dict(one.settings) for one in workspace.triggers(here)), {})
    profiles = load_profiles(file)
    rendered = preview_rendering(
        workspace.folder, here, [sample_row(one, given) for one in profiles]
    )
    documents = []
    name = name or _remote_name(here)
    with client as api:
        known = _find_remote(api, name, LYTICS_TYPES[PurePosixPath(here).suffix])
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
