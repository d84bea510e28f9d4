"""`segrelay template`: list, write and check templates."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

import typer

from segrelay.jsonnet.engines.judge import judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.templates.check import (
    Checked,
    LastCheck,
    LiveCheck,
    check_live,
    checked,
    lines_of,
    read_facts,
    read_last_checks,
    remember_checks,
    source_below,
)
from segrelay.ops.templates.remote import add_remote
from segrelay.ops.templates.render import render, watch
from segrelay.ops.templates.testing import diff, run_cases
from segrelay.ops.templates.workspace import (
    Folder,
    Workspace,
    shipped_models,
    workspace_of,
    write_new,
)
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms
from segrelay.ops.terminal.options import Strict
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.templates import TemplateReport
from segrelay.worker.contract.printable import plural
from segrelay.worker.errors import UsageWrong, WeMustAct

app = typer.Typer(help="Write, try, test, check, compare and push templates.")

_NOTHING_COMPARED: Final = (
    "The templates were compared with no other engine: neither jsonnet nor gojsonnet is installed"
    " here. `pip install gojsonnet` adds one; everything else works without."
)


@app.command("list")
def list_(*, templates: Folder = None) -> Result:
    """Show the templates, the triggers that use them, and their last check."""
    workspace = workspace_of(templates)
    memory = read_last_checks(workspace)
    rows = [_row(workspace, name, memory.get(name)) for name in workspace.names()]
    cells = [
        (r["template"], r["version"] or "-", ", ".join(r["triggers"]) or "-", _last(r))
        for r in rows
    ]
    columns: TableColumns = ("template", "version", *text_columns("used by", "last check"))
    return Result({"templates": rows}, Table(columns, cells))


def _row(workspace: Workspace, name: str, last: LastCheck | None) -> dict[str, Any]:
    own = _version(workspace, name)
    users = workspace.users(name)
    # Triggers that make their URL by a template, too, have one version of all, as `status` says.
    whole = (
        {_version(workspace, workspace.settings.template_of(one)) for one in users}
        if workspace.settings
        else set()
    )
    return {
        "template": name,
        "version": ", ".join(sorted(whole)) or own,
        "triggers": [one.name for one in users],
        "last_check": asdict(last) if last else None,
        "changed_since": last is not None and last.content_hash not in ("", own),
    }


def _version(workspace: Workspace, name: str) -> str:
    try:
        return TemplateFolder(workspace.folder, LYTEMPLATES).bundle(name).content_hash
    except TemplateBroken:
        return ""


def _last(row: dict[str, Any]) -> str:
    last = row["last_check"]
    if last is None:
        return "never"
    if row["changed_since"]:
        return f"changed since {shown_ms(last['at_ms'])}"
    words = "fit" if last["fit"] else "not fit"
    warnings = f", {last['warnings']} warnings" if last["warnings"] else ""
    return f"{words}{warnings}, {shown_ms(last['at_ms'])}"


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
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a corrected copy of what was damaged by copying.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Also ask Insider's panel what of it would be dropped silently."
        ),
    ] = False,
    strict: Strict = False,
) -> Result:
    """Parse templates, render samples, and compare the engines.

    The exit code is 0 if all templates are fit, and 2 if one does not load, fails for every sample,
    or means something else to another engine; with --strict, also if there are warnings. A template
    that triggers use is rendered with their settings and samples, any other with a sample of each
    direction. With --fix the corrected copy of NAME.jsonnet is NAME.fixed.jsonnet, and checked too.
    With --live, attributes, events and parameters that the panel of a trigger's destination does
    not define, or has with another type, are named; nothing is written there. The exit code is 1 if
    a panel gives no answer.
    """
    workspace = workspace_of(templates)
    known = read_facts(workspace)
    found = [
        one
        for name in workspace.names(names or ())
        for one in checked(workspace, name, known, fixes=fix)
    ]
    loaded = [one.report.template for one in found if one.report.content_hash]
    asked = check_live(workspace, loaded) if live else None
    if asked:
        found = [one.with_findings(asked.findings.get(one.report.template, ())) for one in found]
    remember_checks(workspace, {one.report.template: one.last for one in found})
    compared_with = judges()
    is_fit = all(one.report.is_fit and not (strict and one.report.findings) for one in found)
    unanswered = 1 if asked and asked.unanswered else 0
    panels = {"unanswered": asked.unanswered, "unused": asked.unused} if asked else None
    documents = [_document(one) for one in found]
    return Result(
        {"templates": documents, "compared_with": compared_with, "live": panels},
        *(line for one in found for line in _lines(one, workspace)),
        notes=_notes(found, workspace, asked, compared_with),
        exit_code=unanswered if is_fit else WeMustAct.exit_code,
    )


def _notes(
    found: Sequence[Checked],
    workspace: Workspace,
    asked: LiveCheck | None,
    compared_with: Collection[str],
) -> Iterator[str]:
    source = source_below(workspace.folder) if sys.stderr.isatty() else lambda _: ""
    for finding in (each for one in found for each in one.report.findings):
        yield from lines_of(finding, source)
    if not compared_with and any(_is_jsonnet(one.report) for one in found):
        yield _NOTHING_COMPARED
    for name in asked.unused if asked else ():
        yield f"{name}: no trigger of Insider uses it, so there is no panel to ask about it."
    for destination, problem in asked.unanswered.items() if asked else ():
        yield f"{destination}: what it drops is not known: {problem}"


def _document(one: Checked) -> dict[str, Any]:
    first = {"template": one.report.template, "fit": one.report.is_fit}
    more = {
        "compiled": _is_compiled(one.report),
        "corrected": one.corrected.text if one.corrected else None,
        "fixed": one.fixed,
    }
    return {**first, **asdict(one.report), **more}


def _is_jsonnet(report: TemplateReport) -> bool:
    return report.language == "Jsonnet"


def _is_compiled(report: TemplateReport) -> bool:
    return _is_jsonnet(report) and bool(report.content_hash) and not report.not_compiled


def _needed_engine(report: TemplateReport) -> str:
    """Say how many samples needed the Jsonnet engine although the template is compiled, and why."""
    needed = report.needed_engine
    if not needed:
        return ""
    reasons = "; ".join(f"{label}: {why}" for label, why in needed.items())
    return (
        f", but {len(needed)} of {plural(len(report.renders), 'sample')} needed Jsonnet"
        f" itself ({reasons})"
    )


def _lines(one: Checked, workspace: Workspace) -> Iterator[str]:
    report = one.report
    yield f"{report.template}: {'fit' if report.is_fit else 'not fit'}"
    for label, words in report.renders.items():
        yield f"  {label}: {words}"
    if report.not_compiled:
        yield f"  not compiled to Python, so several times slower, for {report.not_compiled}"
    elif _is_compiled(report):
        yield f"  compiled to Python{_needed_engine(report)}"
    if one.fixed:
        yield f"  the corrected copy is {workspace.folder / one.fixed}"


app.command()(render)
app.command()(watch)
app.command("test")(run_cases)
app.command()(diff)
add_remote(app)
