"""`segrelay config`: check the configuration, and show what is in effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.terminal.console import mention, print_json, print_result, say
from ops.terminal.options import Json, Strict
from worker.contract.settings import Settings, load_settings
from worker.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from worker.checks.finding import Finding

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The problems and warnings that a check has found."""

    valid: bool
    problems: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def is_right(self) -> bool:
        """Say whether there is neither a problem nor a warning."""
        return self.valid and not self.warnings


def inspect(
    load: Callable[[], Settings], check_triggers: Callable[[Settings], Sequence[Finding]]
) -> CheckReport:
    """Check the form of the configuration and, where that is right, its templates."""
    try:
        settings = load()
    except ConfigurationInvalid as error:
        return CheckReport(valid=False, problems=error.message.splitlines(), warnings=[])
    findings = check_triggers(settings)
    problems = [_line(settings, one) for one in findings if one.severity == "error"]
    warnings = [_line(settings, one) for one in findings if one.severity != "error"]
    return CheckReport(not problems, problems, [*settings.warnings, *warnings])


def _line(settings: Settings, finding: Finding) -> str:
    return f"{settings.source.name}: triggers.{finding.trigger}: {finding.message}"


@app.command()
def check(
    *,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Also ask Insider whether the credentials and attributes are right, and get a"
            " token of each OAuth2 authorization.",
        ),
    ] = False,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Find everything that is wrong with the configuration.

    Each trigger's template is rendered with a sample, the result is held against its path, and the
    triggers are compared with each other. Problems keep everything from starting: the exit code is
    2. Warnings name what does not work as it is, or is probably not meant: with --strict the exit
    code is 2 for them as well. If Redis answers, it is asked whether it is in use with another
    identity or number of partitions, and whether a destination has only another name than before.
    """
    from worker.checks.triggers import check_triggers  # noqa: PLC0415 - `show` needs no engine

    now = datetime.now(UTC)
    report = inspect(load_settings, lambda settings: check_triggers(settings, now))
    if report.valid:
        report = _with_redis(report, load_settings())
    if live and report.valid:
        report = _with_live(report, load_settings())
    if json:
        print_json(asdict(report) | {"right": report.is_right})
    else:
        _tell(report)
    if not (report.is_right if strict else report.valid):
        raise typer.Exit(ConfigurationInvalid.exit_code)


def _with_live(report: CheckReport, settings: Settings) -> CheckReport:
    from ops.config.redis_look import check_tokens  # noqa: PLC0415 - only `--live` asks
    from ops.insider.live_check import check_live  # noqa: PLC0415 - only `--live` asks

    findings = [*check_tokens(settings), *check_live(settings)]
    lines = {
        severity: [
            f"{settings.source.name}: {one.place}: {one.message}"
            for one in findings
            if one.severity == severity
        ]
        for severity in ("error", "warning")
    }
    problems = [*report.problems, *lines["error"]]
    warnings = [*report.warnings, *lines["warning"]]
    return CheckReport(not problems, problems, warnings, report.notes)


def _with_redis(report: CheckReport, settings: Settings) -> CheckReport:
    from ops.config.redis_look import look_at_redis  # noqa: PLC0415 - `show` needs no Redis
    from worker.checks.triggers import check_without_ids  # noqa: PLC0415 - nor an engine

    look = look_at_redis(settings)
    without_ids = check_without_ids(settings, look.identified, datetime.now(UTC))
    warnings = [*look.warnings, *(_line(settings, one) for one in without_ids)]
    return CheckReport(not look.problems, look.problems, [*report.warnings, *warnings], look.notes)


def _tell(report: CheckReport) -> None:
    for problem in report.problems:
        mention(problem)
    for warning in report.warnings:
        mention(f"warning: {warning}")
    for one in report.notes:
        mention(one)
    if report.is_right:
        say("The configuration is right.")
    elif report.valid:
        warnings = _counted(len(report.warnings), "warning")
        say(f"The configuration can be loaded, but see the {warnings} above before you rely on it.")
    else:
        mention(f"{_counted(len(report.problems), 'problem')}.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


@app.command()
def show(*, json: Json = False) -> None:
    """Show the configuration that is in effect.

    That is the file, its defaults and the environment. Secrets show as `set` or `unset`.
    """
    document = load_settings().model_dump(mode="json", by_alias=True)
    lines = (f"{place} = {value}" for place, value in _leaves(document, ""))
    print_result(document, *lines, as_json=json)


_EMPTY: Final[tuple[object, ...]] = ({}, [], "", None)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value:
        yield place, ", ".join(str(one) for one in value)
    else:
        yield place, "-" if value in _EMPTY else value
