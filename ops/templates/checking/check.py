"""The check of one template: all findings, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ops.state.opened import already_there
from ops.templates.checking.calls import wrong_calls
from ops.templates.checking.fields import unknown_fields
from ops.templates.checking.findings import once, placed
from ops.templates.checking.remembered import LastCheck, now_ms
from ops.templates.checking.repair import Repaired, copy_of, repaired
from ops.templates.testing.cases import cases_of
from ops.templates.workspace import Workspace
from worker.checks.finding import Finding
from worker.checks.templates import TemplateReport, check_template
from worker.contract.people.seen_fields import seen_fields
from worker.errors import SegrelayError
from worker.jsonnet.files import TemplateFolder


@dataclass(frozen=True, slots=True)
class Checked:
    """The check of one template.

    Args:
        fixed: Name of the repaired copy; "" = none was written.
        repaired: The repaired text; None if nothing needs a repair.
    """

    report: TemplateReport
    repaired: Repaired | None = None
    fixed: str = ""

    def with_findings(self, more: Sequence[Finding]) -> Checked:
        """Return the check with more findings."""
        report = replace(self.report, findings=once([*self.report.findings, *more]))
        return replace(self, report=report)

    @property
    def last(self) -> LastCheck:
        """Return the part of the check that is remembered."""
        warnings = sum(one.severity == "warning" for one in self.report.findings)
        return LastCheck(self.report.content_hash, self.report.is_fit, warnings, now_ms())


def fields_seen(workspace: Workspace) -> frozenset[str]:
    """Return the names of fields that recent profiles had; none if Redis does not run."""
    if workspace.settings is None:
        return frozenset()
    try:
        with already_there() as (_, client):
            return seen_fields(client)
    except SegrelayError:
        return frozenset()


def checked(
    workspace: Workspace, name: str, seen: Collection[str], *, fixes: bool
) -> Iterator[Checked]:
    """Yield the check of a template, and with `fixes` also that of its repaired copy."""
    report = check_template(workspace.folder, name, workspace.cases(name))
    if report.content_hash:
        bundle = TemplateFolder(workspace.folder).bundle(name)
        unknown = unknown_fields(bundle, _profiles(workspace, name), seen)
        said = (*report.findings, *wrong_calls(bundle), *unknown)
        found = [placed(one, name, bundle) for one in said]
        yield Checked(replace(report, findings=once(found)))
        return
    repair = _repaired(workspace, name)
    # The damage was the engine's trouble too: it is told once, with what it should have been.
    found = [placed(one, name, None) for one in (_repairs(name, repair) or report.findings)]
    fixed = _write_copy(workspace, name, repair) if fixes and repair else ""
    yield Checked(replace(report, findings=once(found)), repair, fixed)
    if fixed and repair and not repair.problem:
        yield from checked(workspace, fixed, seen, fixes=False)


def _profiles(workspace: Workspace, name: str) -> Sequence[Mapping[str, Any]]:
    own = [case.profile for case in cases_of(workspace.folder, name)]
    return [*own, *(case.profile for case in workspace.cases(name))]


def _repaired(workspace: Workspace, name: str) -> Repaired | None:
    try:
        found = repaired((workspace.folder / name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return found if found.repairs else None


def _repairs(name: str, repair: Repaired | None) -> list[Finding]:
    if repair is None:
        return []
    found = [
        Finding(
            "error",
            f"damage from Markdown, as when copied from a page: {one.in_words}; --fix writes a"
            " repaired copy.",
            "",
            name,
            one.line,
            one.column,
        )
        for one in repair.repairs
    ]
    if repair.problem:
        said = f"still does not parse without that damage: {repair.problem}; mend it by hand."
        found.append(Finding("error", said, "", name, repair.line, repair.column))
    return found


def _write_copy(workspace: Workspace, name: str, repair: Repaired) -> str:
    path = copy_of(workspace.folder / name)
    path.write_text(repair.text, "utf-8")
    return path.relative_to(workspace.folder).as_posix()
