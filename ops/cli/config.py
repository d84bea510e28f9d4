"""`segrelay config`: whether the configuration is right, and what is in effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Protocol

import typer

from ops.cli.console import note, print_json, say
from worker.contract.settings import Settings, load_settings
from worker.errors import ConfigurationInvalid

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Finding(Protocol):
    """What is wrong with a trigger's template, or looks wrong."""

    @property
    def trigger(self) -> str:
        """Return the trigger's name."""
        ...

    @property
    def severity(self) -> str:
        """Return `error` or `warning`."""
        ...

    @property
    def message(self) -> str:
        """Return what is wrong, where, and what to do."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found."""

    valid: bool
    problems: Sequence[str]
    warnings: Sequence[str]


def inspect(
    load: Callable[[], Settings], check_triggers: Callable[[Settings], Sequence[Finding]]
) -> Report:
    """Check the form of the configuration and, where that is right, its templates."""
    try:
        settings = load()
    except ConfigurationInvalid as error:
        return Report(valid=False, problems=error.message.splitlines(), warnings=[])
    findings = check_triggers(settings)
    problems = [_line(settings, one) for one in findings if one.severity == "error"]
    warnings = [_line(settings, one) for one in findings if one.severity != "error"]
    return Report(not problems, problems, [*settings.warnings, *warnings])


def _line(settings: Settings, finding: Finding) -> str:
    return f"{settings.source.name}: triggers.{finding.trigger}: {finding.message}"


@app.command()
def check(
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Ask Insider's panel too: credentials, attributes.")
    ] = False,
    json: Json = False,
) -> None:
    """Say everything that is wrong.

    The exit code is 2 if something is. Each trigger's template is rendered with a sample, and the
    result held against its path.
    """
    from worker.trigger_check import check_triggers  # noqa: PLC0415 - `config show` needs no engine

    report = inspect(load_settings, check_triggers)
    if live and report.valid:
        report = _with_live(report, load_settings())
    if json:
        print_json(asdict(report))
    else:
        _tell(report)
    if not report.valid:
        raise typer.Exit(ConfigurationInvalid.exit_code)


def _with_live(report: Report, settings: Settings) -> Report:
    from ops.insider.live_check import check_live  # noqa: PLC0415 - only `--live` asks

    findings = check_live(settings)
    lines = {
        severity: [
            f"{settings.source.name}: {one.place}: {one.message}"
            for one in findings
            if one.severity == severity
        ]
        for severity in ("error", "warning")
    }
    problems = [*report.problems, *lines["error"]]
    return Report(not problems, problems, [*report.warnings, *lines["warning"]])


def _tell(report: Report) -> None:
    for problem in report.problems:
        note(problem)
    for warning in report.warnings:
        note(f"warning: {warning}")
    if report.valid:
        say("The configuration is right.")
    else:
        note(f"{len(report.problems)} problem{'s' * (len(report.problems) != 1)}.")


@app.command()
def show(*, json: Json = False) -> None:
    """Show what is in effect.

    That is the file, its defaults and the environment. Secrets show as `set` or `unset`.
    """
    document = load_settings().model_dump(mode="json", by_alias=True)
    if json:
        print_json(document)
        return
    for place, value in _leaves(document, ""):
        say(f"{place} = {value}")


_EMPTY: Final[tuple[object, ...]] = ({}, [], "", None)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value:
        yield place, ", ".join(str(one) for one in value)
    else:
        yield place, "-" if value in _EMPTY else value
