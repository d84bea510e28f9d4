"""`segrelay template push` and `remote`: templates at Lytics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ops.templates.remote import (
    opened_api,
    push,
    remote_name,
    source_for_lytics,
    try_there,
)
from ops.templates.workspace import TemplateArgument, Workspace, full_name, names_in, workspace_of
from ops.terminal.console import mention, print_json, print_result, say, table
from ops.terminal.options import Json
from ops.terminal.tables import text_columns
from worker.checks.rehearsal import rehearse_rendering
from worker.checks.samples import load_profiles
from worker.checks.templates import check_template
from worker.contract.settings import Settings
from worker.errors import TemplateBroken
from worker.jsonnet.files import TemplateFolder

remote = typer.Typer()


def add_remote(app: typer.Typer) -> None:
    """Add the commands to those about templates."""
    app.command("push")(push_)
    app.add_typer(remote, name="remote", help="List or try the templates at Lytics.")


def push_(
    template: TemplateArgument,
    *,
    name: Annotated[
        str, typer.Option("--as", help="Its name at Lytics; else made of its path.", metavar="NAME")
    ] = "",
    description: Annotated[str, typer.Option(help="What Lytics shows beside it.")] = "",
    json: Json = False,
) -> None:
    """Put a template into the account at Lytics, or replace it there.

    It is checked first. Lytics keeps single templates: one that imports other files than
    lytemplates.libsonnet is refused. There are no versions there: git has yours.
    """
    workspace, settings = _configured()
    file = full_name(template)
    source = source_for_lytics(TemplateFolder(workspace.folder), file)
    report = check_template(workspace.folder, file, workspace.cases(file))
    if not report.is_fit:
        said = "; ".join(one.message for one in report.findings if one.severity == "error")
        raise TemplateBroken(f"{file} is not fit, and was not pushed: {said}", file)
    with opened_api(settings) as api:
        done = push(api, name or remote_name(file), source, description)
    if json:
        print_json({"name": done.name, "id": done.template_id, "created": done.created})
        return
    say(f"{done.name} is {'created' if done.created else 'replaced'} at Lytics: {done.template_id}")
    mention(f"Try it there: segrelay template remote test {template} samples/enter.json")


def _configured() -> tuple[Workspace, Settings]:
    workspace = workspace_of(None)
    assert workspace.settings is not None
    return workspace, workspace.settings


@remote.command("list")
def list_(*, json: Json = False) -> None:
    """Show the templates of the account; Lytics does not tell their sources."""
    workspace, settings = _configured()
    with opened_api(settings) as api:
        found = api.list_templates()
    ours = {remote_name(name): name for name in names_in(workspace.folder)}
    rows = [_row(one, ours) for one in found]
    if json:
        print_json({"templates": rows})
        return
    table(
        ("name", "id", "type", "here", *text_columns("description")),
        [(r["name"], r["id"], r["type"], r["here"] or "-", r["description"]) for r in rows],
    )


def _row(one: dict[str, Any], ours: dict[str, str]) -> dict[str, Any]:
    text = {key: str(one.get(key) or "") for key in ("name", "id", "type", "description")}
    return text | {"here": ours.get(text["name"], "")}


@remote.command("test")
def try_there_(
    template: TemplateArgument,
    file: Annotated[Path, typer.Argument(help="A payload, or an array of them, as JSON.")],
    *,
    name: Annotated[
        str, typer.Option("--as", help="Its name at Lytics; else made of its path.", metavar="NAME")
    ] = "",
    json: Json = False,
) -> None:
    """Have Lytics render events with a template that was pushed, and compare.

    Lytics answers 200 also where a template throws; here that is a failure. The exit code is 1 if
    Lytics fails, or makes something else of an event.
    """
    workspace, settings = _configured()
    here = full_name(template)
    given = next((dict(one.settings) for one in workspace.triggers(here)), {})
    documents = []
    with opened_api(settings) as api:
        for number, profile in enumerate(load_profiles(file), 1):
            text = orjson.dumps(profile)
            [ours] = rehearse_rendering(workspace.folder, here, [(f"event {number}", text)], given)
            result = try_there(api, name or remote_name(here), profile, given, ours)
            documents.append(
                {
                    "event": ours.name,
                    "same": not result.problem,
                    "problem": result.problem,
                    "theirs": result.theirs,
                    "ours": ours.body,
                }
            )
    lines = (f"{one['event']}: {one['problem'] or 'Lytics renders the same.'}" for one in documents)
    print_result({"events": documents}, *lines, as_json=json)
    if not all(one["same"] for one in documents):
        raise typer.Exit(1)
