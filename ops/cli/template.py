"""`segrelay template`: are the templates fit, and what do they make of a payload."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, assert_never

import orjson
import typer

from ops.cli.console import note, print_json, say
from worker.adapters.jsonnet.isolated import Killed, render_isolated
from worker.adapters.jsonnet.judge import judges
from worker.adapters.jsonnet.renderer import Asserted, Rendered, Result, Row, TemplateFailed
from worker.checks.rendering import RENDER_MEMORY_BYTES, RENDER_SECONDS
from worker.checks.samples import load_profiles, profile_for, sample_profile
from worker.checks.templates import Case, TemplateReport, check_template, in_words
from worker.contract.settings import Settings, Trigger, load_settings
from worker.contract.words import Direction
from worker.errors import TemplateBroken, UsageWrong

app = typer.Typer()

_PATTERN: Final = "*.jsonnet"

_NOTHING_COMPARED: Final = (
    "The templates were compared with no other engine: neither jsonnet nor gojsonnet is installed"
    " here. `pip install gojsonnet` adds one; everything else works without."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--templates", help="This folder; the configuration is not read then.", metavar="DIR"
    ),
]


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Below the templates folder; all by default.", metavar="[TEMPLATE]..."),
    ] = None,
    *,
    templates: Folder = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 for warnings as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Parse templates, render samples, and compare the engines.

    The exit code is 0 if all templates are fit, and 2 if one does not load, fails for every sample,
    or means something else to another engine; with --strict, also if there are warnings. A template
    that triggers use is rendered with their settings and samples, any other with a sample of each
    direction.
    """
    settings = load_settings() if templates is None else None
    folder = _folder(templates, settings)
    wanted = names or sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob(_PATTERN) if path.is_file()
    )
    if not wanted:
        raise UsageWrong(f"{folder}: there is no template ({_PATTERN}).")
    reports = [check_template(folder, name, _cases(name, settings)) for name in wanted]
    compared_with = judges()
    if json:
        documents = [_document(report) for report in reports]
        print_json({"templates": documents, "compared_with": compared_with})
    else:
        _tell(reports)
    if not compared_with:
        note(_NOTHING_COMPARED)
    if not all(_passes(report, strict=strict) for report in reports):
        raise typer.Exit(TemplateBroken.exit_code)


def _passes(report: TemplateReport, *, strict: bool) -> bool:
    return report.is_fit and not (strict and report.findings)


@app.command()
def render(
    template: Annotated[str, typer.Argument(help="Below the templates folder.")],
    file: Annotated[Path, typer.Argument(help="One payload, or an array of them, as JSON.")],
    *,
    templates: Folder = None,
    settings: Annotated[
        str, typer.Option(help="The trigger's settings, a JSON object.", metavar="JSON")
    ] = "{}",
    json: Json = False,
) -> None:
    """Print what a template makes of each segment event of a payload.

    The exit code is 2 if the template fails for one.
    """
    folder = _folder(templates, load_settings() if templates is None else None)
    given = _object_of(settings)
    rows = [Row(orjson.dumps(profile), given) for profile in load_profiles(file)]
    results = render_isolated(
        folder,
        template,
        rows,
        seconds=RENDER_SECONDS,
        memory_bytes=RENDER_MEMORY_BYTES,
    )
    if isinstance(results, Killed):
        raise TemplateBroken(
            f"{template}: rendering event {results.row + 1} of {len(rows)} ends or hangs the"
            " process.",
            template,
        )
    _print_results(results, as_json=json)
    if any(isinstance(result, TemplateFailed) for result in results):
        raise typer.Exit(TemplateBroken.exit_code)


def _folder(named: Path | None, settings: Settings | None) -> Path:
    if settings is not None:
        return settings.templates_folder
    assert named is not None
    if not named.is_dir():
        raise UsageWrong(f"{named}: there is no such folder.")
    return named


def _cases(template: str, settings: Settings | None) -> list[Case]:
    triggers = settings.triggers.values() if settings is not None else ()
    cases = [
        _case_of_trigger(trigger, settings)
        for trigger in triggers
        if settings is not None and trigger.template == template
    ]
    if cases:
        return cases
    now = datetime.now(UTC)
    return [Case(direction.value, sample_profile(direction, now), {}) for direction in Direction]


def _case_of_trigger(trigger: Trigger, settings: Settings) -> Case:
    profile = profile_for(settings, trigger, datetime.now(UTC))
    return Case(f"trigger {trigger.name}", profile, trigger.settings)


def _object_of(text: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"--settings is not JSON: {error.msg}.") from error
    if not isinstance(value, dict):
        raise UsageWrong("--settings has to be a JSON object.")
    return value


def _document(report: TemplateReport) -> dict[str, Any]:
    return {
        "template": report.template,
        "fit": report.is_fit,
        "content_hash": report.content_hash,
        "renders": dict(report.renders),
        "compiled": bool(report.content_hash) and not report.not_compiled,
        "not_compiled": report.not_compiled,
        "findings": [asdict(finding) for finding in report.findings],
    }


def _tell(reports: Sequence[TemplateReport]) -> None:
    for report in reports:
        say(f"{report.template}: {'fit' if report.is_fit else 'not fit'}")
        for label, words in report.renders.items():
            say(f"  {label}: {words}")
        if report.not_compiled:
            say(f"  not compiled to Python, so several times slower, for {report.not_compiled}")
        elif report.content_hash:
            say("  compiled to Python")
        for finding in report.findings:
            note(f"{finding.severity}: {_placed(report, finding.message)}")


def _placed(report: TemplateReport, message: str) -> str:
    """Name the template where the message does not begin with it."""
    return message if report.template in message else f"{report.template}: {message}"


def _print_results(results: Sequence[Result], *, as_json: bool) -> None:
    if as_json:
        print_json([_outcome(result) for result in results])
        return
    for result in results:
        if isinstance(result, Rendered):
            say(json_text.dumps(json_text.loads(result.body), indent=2, ensure_ascii=False))
        else:
            note(in_words(result))


def _outcome(result: Result) -> dict[str, Any]:
    match result:
        case Rendered(body):
            return {"outcome": "rendered", "body": json_text.loads(body)}
        case Asserted(message):
            return {"outcome": "skipped", "reason": "asserted", "message": message}
        case TemplateFailed(message, file, line):
            return {"outcome": "failed", "message": message, "file": file, "line": line}
        case _:
            assert_never(result)
