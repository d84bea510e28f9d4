"""`segrelay template`: list, write and check templates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

import typer

from segrelay.jsonnet.engines.judge import judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.templates.check import TemplateReport, checked, known_fields
from segrelay.ops.templates.remote import push_, remote
from segrelay.ops.templates.render import diff, render
from segrelay.ops.templates.testing import run_cases
from segrelay.ops.templates.workspace import (
    Folder,
    Workspace,
    shipped_models,
    workspace_of,
    write_new,
)
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.options import Strict
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.templates import LYTEMPLATES
from segrelay.worker.errors import UsageWrong, WeMustAct

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
    seen = known_fields(workspace)
    found = [checked(workspace, name, seen) for name in workspace.names(names or ())]
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


app.command()(render)
app.command("test")(run_cases)
app.command()(diff)
app.command("push")(push_)
app.add_typer(remote, name="remote", help="List or try the templates at Lytics.")
