"""Checks templates, also against Insider's panels, and remembers the last check of each.

A finding is a line `file:line:column: severity: what; hint`, and the source line below.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from segrelay.javascript.source import fields_written
from segrelay.jsonnet.files import Bundle, SourceFile, TemplateFolder, shown
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import location
from segrelay.ops.insider import InsiderReader, LiveFinding, check_panel
from segrelay.ops.state.opened import already_there
from segrelay.ops.templates.fields import (
    Corrected,
    copy_of,
    corrected,
    nodes_of,
    unknown_fields,
    wrong_calls,
)
from segrelay.ops.templates.testing import cases_of
from segrelay.ops.templates.workspace import Workspace
from segrelay.templates import LYTEMPLATES
from segrelay.worker.adapters.redis.shared_keys import read_identified
from segrelay.worker.checks.samples import Finding
from segrelay.worker.checks.templates import TemplateReport, check_template
from segrelay.worker.contract.fields import seen_fields
from segrelay.worker.contract.settings import Trigger
from segrelay.worker.errors import SegrelayError, UsageWrong

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_SPEAKING: Final = frozenset(
    {"not_append", "append", "error_callback_endpoint", "whole", "partial", "events", "attributes"}
)
"""Fields of a body that findings name, and that have the same name in the template."""


def placed(
    finding: Finding, template: str, bundle: Bundle | None, names: Sequence[str] = ()
) -> Finding:
    """Return a finding with its place; the message does not repeat the place.

    Args:
        finding: About a field of the body, or about none.
        template: The template's name.
        bundle: None where it does not load.
        names: The fields that it is about; none = they are searched in its message.
    """
    file = finding.file or template
    message = finding.message
    for prefix in (f"{file}:{finding.line}:{finding.column}: ", f"{file}: "):
        message = message.removeprefix(prefix)
    found = replace(finding, file=file, message=message)
    return found if finding.line or bundle is None else _looked_up(found, bundle, names)


def once(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings without duplicates, which have the same place and message."""
    seen = {(one.file, one.line, one.column, one.message): one for one in findings}
    return list(seen.values())


def _looked_up(finding: Finding, bundle: Bundle, names: Sequence[str]) -> Finding:
    """Add the place where the template writes the field that a finding is about."""
    words = _WORD.findall(finding.message)
    told = (word for word in words if word in _SPEAKING)
    wanted = list(names or told) or [word for word in words if "_" in word]
    for file in bundle.files.values():
        if shown(file.name) != finding.file or not wanted:
            continue
        at = _fields_of(file)
        for word in wanted:
            if word in at:
                line, column = location(file.text, at[word])
                return replace(finding, line=line, column=column)
    return finding


def _fields_of(file: SourceFile) -> dict[str, int]:
    """Return where a file writes each field of the body."""
    if LYTEMPLATES.language_of(file.name):
        return dict(fields_written(file.text))
    return {
        str(member.name.value): member.at
        for node, _ in nodes_of(file)
        for member in (node.fields if isinstance(node, tree.Object) else ())
        if isinstance(member.name, tree.Constant)
    }


def where(finding: Finding) -> str:
    """Return the place of a finding as compilers write it."""
    if not finding.line:
        return finding.file
    return f"{finding.file}:{finding.line}:{finding.column}"


def lines_of(finding: Finding, source: Callable[[str], str]) -> Iterator[str]:
    """Yield a finding's line, and the line of the source with a mark below.

    `source` returns the text of a file, or "" where it can't be read.
    """
    yield f"{where(finding)}: {finding.severity}: {finding.message}"
    lines = source(finding.file).splitlines() if finding.line else []
    if 0 < finding.line <= len(lines):
        yield f"  {lines[finding.line - 1]}"
        yield f"  {' ' * (finding.column - 1)}^"


def source_below(folder: Path) -> Callable[[str], str]:
    """Return a function that reads the files of a templates folder."""

    def read(name: str) -> str:
        try:
            return (folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    return read


_NAME: Final = "template-checks.json"


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The last check of a template, as it is remembered.

    Args:
        content_hash: The hash of the checked template; "" = it did not load.
    """

    content_hash: str
    fit: bool
    warnings: int
    at_ms: int


def _memory(workspace: Workspace) -> Path | None:
    settings = workspace.settings
    return settings.redis.data_dir / _NAME if settings else None


def read_last_checks(workspace: Workspace) -> dict[str, LastCheck]:
    """Return the last checks by template; none without a configuration, or a record of checks."""
    path = _memory(workspace)
    try:
        document = orjson.loads(path.read_bytes()) if path else {}
        return {name: LastCheck(**each) for name, each in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember_checks(workspace: Workspace, checks: Mapping[str, LastCheck]) -> None:
    """Remember these checks; nothing is remembered if the folder can't be written."""
    path = _memory(workspace)
    both = {name: asdict(each) for name, each in {**read_last_checks(workspace), **checks}.items()}
    if path:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(both, option=orjson.OPT_INDENT_2))


@dataclass(frozen=True, slots=True)
class Checked:
    """The check of one template.

    Args:
        fixed: Name of the corrected copy; "" = none was written.
        corrected: The corrected text; None if nothing needs a correction.
    """

    report: TemplateReport
    corrected: Corrected | None = None
    fixed: str = ""

    def with_findings(self, more: Sequence[Finding]) -> Checked:
        """Return the check with more findings."""
        report = replace(self.report, findings=once([*self.report.findings, *more]))
        return replace(self, report=report)

    @property
    def last(self) -> LastCheck:
        """Return the part of the check that is remembered."""
        warnings = sum(one.severity == "warning" for one in self.report.findings)
        at_ms = time.time_ns() // 1_000_000
        return LastCheck(self.report.content_hash, self.report.is_fit, warnings, at_ms)


class KnownFacts(NamedTuple):
    """Facts about profiles and audiences that Redis knows.

    Attributes:
        fields: The names of fields that recent profiles had.
        identified: Slugs whose id is known, and these ids.
    """

    fields: frozenset[str] = frozenset()
    identified: frozenset[str] = frozenset()


def read_facts(workspace: Workspace) -> KnownFacts:
    """Return what Redis knows; nothing if it does not run."""
    if workspace.settings is None:
        return KnownFacts()
    try:
        with already_there() as (_, client):
            return KnownFacts(seen_fields(client), read_identified(client))
    except SegrelayError:
        return KnownFacts()


def checked(
    workspace: Workspace, name: str, known: KnownFacts, *, fixes: bool
) -> Iterator[Checked]:
    """Yield the check of a template, and with `fixes` also that of its corrected copy."""
    cases = workspace.cases(name, known.identified)
    report = check_template(workspace.folder, name, cases)
    if report.content_hash:
        bundle = TemplateFolder(workspace.folder, LYTEMPLATES).bundle(name)
        profiles = [case.profile for case in cases_of(workspace.folder, name)]
        profiles += [case.profile for case in workspace.cases(name)]
        unknown = unknown_fields(bundle, profiles, known.fields)
        said = (*report.findings, *wrong_calls(bundle), *unknown)
        found = [placed(one, name, bundle) for one in said]
        yield Checked(replace(report, findings=once(found)))
        return
    correction = _corrected(workspace, name)
    # The damage was the engine's trouble too: it is told once, with what it should have been.
    found = [placed(one, name, None) for one in (_corrections(name, correction) or report.findings)]
    fixed = _write_copy(workspace, name, correction) if fixes and correction else ""
    yield Checked(replace(report, findings=once(found)), correction, fixed)
    if fixed and correction and not correction.problem:
        yield from checked(workspace, fixed, known, fixes=False)


def _corrected(workspace: Workspace, name: str) -> Corrected | None:
    try:
        found = corrected((workspace.folder / name).read_text("utf-8"), name)
    except (OSError, UnicodeDecodeError):
        return None
    return found if found.corrections else None


def _corrections(name: str, correction: Corrected | None) -> list[Finding]:
    if correction is None:
        return []
    found = [
        Finding(
            "error",
            f"damage from Markdown, as when copied from a page: {one.in_words}; --fix writes a"
            " corrected copy.",
            "",
            name,
            one.line,
            one.column,
        )
        for one in correction.corrections
    ]
    if correction.problem:
        said = f"still does not parse without that damage: {correction.problem}; mend it by hand."
        found.append(Finding("error", said, "", name, correction.line, correction.column))
    return found


def _write_copy(workspace: Workspace, name: str, correction: Corrected) -> str:
    path = copy_of(workspace.folder / name)
    path.write_text(correction.text, "utf-8")
    return path.relative_to(workspace.folder).as_posix()


_INSIDER: Final = "insider"


@dataclass(slots=True)
class LiveCheck:
    """The findings of Insider's panels about templates.

    Args:
        unanswered: The reasons why panels could not be asked, by destination.
        unused: Templates that no trigger of Insider uses: there is no panel to ask about them.
    """

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def check_live(workspace: Workspace, names: Iterable[str]) -> LiveCheck:
    """Ask the panel of each destination of Insider about the templates of its triggers."""
    settings = workspace.settings
    if settings is None:
        raise UsageWrong("--live needs the configuration, which --templates leaves out.")
    result = LiveCheck()
    triggers: dict[str, list[Trigger]] = {}
    for name in names:
        used = [
            trigger
            for trigger in workspace.triggers(name)
            if settings.destinations[trigger.destination].api == _INSIDER
        ]
        if not used:
            result.unused.append(name)
        for trigger in used:
            triggers.setdefault(trigger.destination, []).append(trigger)
    for destination, asking in triggers.items():
        try:
            with InsiderReader(settings, settings.destinations[destination]) as reader:
                found = list(check_panel(reader, settings, asking))
        except SegrelayError as error:
            result.unanswered[destination] = error.message
            continue
        for one in found:
            template = settings.triggers[one.trigger].template
            result.findings.setdefault(template, []).append(_live_finding(one, template, workspace))
    for told in result.findings.values():
        told.sort(key=lambda one: (one.file, one.line, one.column))
    return result


def _live_finding(one: LiveFinding, template: str, workspace: Workspace) -> Finding:
    finding = Finding(one.severity, f"{one.message}.", one.trigger, template)
    try:
        bundle = TemplateFolder(workspace.folder, LYTEMPLATES).bundle(template)
    except TemplateBroken:
        return finding
    return placed(finding, template, bundle, names=[one.name] if one.name else [])
