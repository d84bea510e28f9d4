"""Checks templates: samples are rendered, all engines agree, and each field that is read exists.

Samples are rendered in processes of their own: a template may kill the one that renders it. Other
engines render the untouched files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.javascript.source import fields_written
from segrelay.jsonnet.accelerated import Accelerator
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import EngineModule, judge, judges
from segrelay.jsonnet.files import Bundle, SourceFile, TemplateFolder, shown
from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import location
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
from segrelay.ops.templates.workspace import Case, Workspace
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import (
    Finding,
    Previewed,
    Severity,
    differences,
    render_apart,
    sample_row,
)
from segrelay.worker.checks.triggers import misplaced_of, warnings_of
from segrelay.worker.contract.fields import seen_fields
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.settings.sections import AUDIENCE_ATTRIBUTE
from segrelay.worker.errors import SegrelayError

Said = str | Failure | None
"""The verdict of an engine: a JSON text, a failure, or None if nobody can tell."""

_REFERENCE: Final = "jsonnet"
_LYTICS: Final = "gojsonnet"
"""The engine that decides in doubt: Lytics runs one of its family."""


def disagreements(
    label: str, result: Result, said: Mapping[EngineModule, Said]
) -> Iterator[Finding]:
    """Say where engines disagree with the worker about a sample.

    Where only the reference implementation does, and go-jsonnet agrees with the worker, the
    template is fit: Lytics would get what the worker gets.
    """
    ours = json.loads(result.body) if isinstance(result, Rendered) else Failure(result.message)
    read = {
        engine: text if isinstance(text, Failure) else json.loads(text)
        for engine, text in said.items()
        if text is not None
    }
    different = {
        engine: difference
        for engine, theirs in read.items()
        if (difference := _difference(ours, theirs))
    }
    is_confirmed = said.get(_LYTICS) is not None and different.keys() == {_REFERENCE}
    for engine, difference in different.items():
        message = (
            f"the worker and the engine {engine} disagree about the sample ({label}): {difference}"
        )
        if is_confirmed:
            confirmed = f"; {_LYTICS}, which is what Lytics runs, agrees with the worker."
            yield Finding("warning", message + confirmed)
        else:
            yield Finding("error", message + ".")


def _difference(ours: Any, theirs: Any) -> str:
    """Return both results where they first differ, side by side; "" where they agree."""
    if isinstance(ours, Failure) and isinstance(theirs, Failure):
        return ""
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        return f"{_shown(ours)}, {_shown(theirs)}"
    if ours == theirs:
        return ""
    path, did, mine, other = next(
        (one for one in differences(ours, theirs) if one[1] != "changed" or one[2] != one[3]),
        ("", "changed", ours, theirs),
    )
    shown = ["nothing" if did == "added" else mine, "nothing" if did == "left out" else other]
    return f"{_shown(shown[0])}, {_shown(shown[1])}, at {path or 'the top'}"


def _shown(value: object) -> str:
    if isinstance(value, Failure):
        return f"an error ({value.message})"
    return json.dumps(value, default=str)[:80]


@dataclass(slots=True)
class TemplateReport:
    """The check of one template.

    Args:
        template: Relative to the templates folder.
        content_hash: "" where it does not load.
        renders: For each case what came out, in words.
        findings: In the order of finding.
        not_compiled: Because of what only Jsonnet renders it; "" where it is compiled, too.
        language: The language that it is written in; one other than Jsonnet has a single engine.
        corrected: The text without damage from copying; None if nothing needs a correction.
        fixed: Name of the corrected copy; "" = none was written.
    """

    template: str
    content_hash: str
    renders: Mapping[str, str]
    findings: Sequence[Finding]
    not_compiled: str = ""
    language: str = "Jsonnet"
    corrected: str | None = None
    fixed: str = ""

    @property
    def is_fit(self) -> bool:
        """Say whether a template passed: nothing but warnings was found."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def is_compiled(self) -> bool:
        """Say whether it is compiled to Python, too."""
        return self.language == "Jsonnet" and bool(self.content_hash) and not self.not_compiled


def check_template(folder: Path, template: str, cases: Sequence[Case]) -> TemplateReport:
    """Load a template, render the cases, and compare with what other engines make of it."""
    try:
        bundle = TemplateFolder(folder, LYTEMPLATES).bundle(template)
        results = render_apart(bundle, [sample_row(case.profile, case.settings) for case in cases])
    except TemplateBroken as error:
        location = (error.file, error.line, error.column)
        return TemplateReport(template, "", {}, [Finding("error", error.message, "", *location)])
    killers = [
        Finding(
            "error",
            f"rendering the sample ({case.label}) ends or hangs the process: look for a value that"
            " refers to itself, an endless recursion, or a huge repetition.",
        )
        for case, result in zip(cases, results, strict=True)
        if isinstance(result, Killed)
    ]
    if killers:
        return TemplateReport(template, bundle.content_hash, {}, killers)
    rendered = [
        (case, result)
        for case, result in zip(cases, results, strict=True)
        if not isinstance(result, Killed)
    ]
    renders = {case.label: Previewed("", result).in_words for case, result in rendered}
    findings = list(_findings_about_renders(rendered, renders))
    if bundle.language:
        name = bundle.language.name
        return TemplateReport(template, bundle.content_hash, renders, findings, language=name)
    said = _judged(bundle, cases)
    for case, result in rendered:
        findings += disagreements(case.label, result, said[case])
    why_not = Accelerator.of(template, bundle).why_not
    return TemplateReport(template, bundle.content_hash, renders, findings, why_not)


def _judged(bundle: Bundle, cases: Sequence[Case]) -> dict[Case, dict[EngineModule, Said]]:
    """Return the answer of each engine to each case."""
    said: dict[Case, dict[EngineModule, Said]] = {case: {} for case in cases}
    groups: dict[bytes, list[Case]] = {}
    for case in cases:
        groups.setdefault(orjson.dumps(dict(case.settings)), []).append(case)
    for engine in judges():
        for settings, group in groups.items():
            values = judge(
                engine, bundle, [orjson.dumps(dict(case.profile)) for case in group], settings
            )
            for case, value in zip(group, values, strict=True):
                said[case][engine] = value
    return said


def _findings_about_renders(
    rendered: Sequence[tuple[Case, Result]], renders: Mapping[str, str]
) -> Iterator[Finding]:
    results = {result for _, result in rendered if not isinstance(result, Rendered)}
    if rendered and not any(isinstance(result, Rendered) for _, result in rendered):
        said = "; ".join(f"{label}: {words}" for label, words in renders.items())
        match list(results):
            case [TemplateFailed(message, file, line)]:
                message = f"it fails for every sample: {message}."
                yield Finding("error", message, "", file, line, int(line > 0))
            case failures if any(isinstance(failure, Asserted) for failure in failures):
                yield Finding("warning", f"no sample renders ({said}).")
            case _:
                yield Finding("error", f"it fails for every sample ({said}).")
    told: dict[str, Finding] = {}
    for case, result in rendered:
        if isinstance(result, Rendered):
            attribute = str(case.settings.get(AUDIENCE_ATTRIBUTE, DEFAULT_AUDIENCE_ATTRIBUTE))
            body = json.loads(result.body)
            misplaced = set(misplaced_of(body))
            for message in warnings_of(body, attribute, case.profile):
                severity: Severity = "error" if message in misplaced else "warning"
                told.setdefault(message, Finding(severity, message))
    yield from told.values()


_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_SPEAKING: Final = frozenset(
    {"not_append", "append", "error_callback_endpoint", "whole", "partial", "events", "attributes"}
)
"""Fields of a body that findings name, and that have the same name in the template."""


def placed(finding: Finding, template: str, bundle: Bundle | None) -> Finding:
    """Return a finding with its place; the message does not repeat the place.

    Args:
        finding: About a field of the body that its message names, or about none.
        template: The template's name.
        bundle: None where it does not load.
    """
    file = finding.file or template
    message = finding.message
    for prefix in (f"{file}:{finding.line}:{finding.column}: ", f"{file}: "):
        message = message.removeprefix(prefix)
    found = replace(finding, file=file, message=message)
    if finding.line or bundle is None:
        return found
    words = _WORD.findall(message)
    wanted = [word for word in words if word in _SPEAKING] or [w for w in words if "_" in w]
    own = next((each for each in bundle.files.values() if shown(each.name) == file), None)
    written = _fields_of(own) if own and wanted else {}
    for word in wanted:
        if own and word in written:
            line, column = location(own.text, written[word])
            return replace(found, line=line, column=column)
    return found


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


def known_fields(workspace: Workspace) -> frozenset[str]:
    """Return the names of fields that recent profiles had; none if Redis does not run."""
    if workspace.settings is None:
        return frozenset()
    try:
        with already_there() as (_, client):
            return seen_fields(client)
    except SegrelayError:
        return frozenset()


def checked(
    workspace: Workspace, name: str, seen: frozenset[str], *, fixes: bool
) -> Iterator[TemplateReport]:
    """Yield the check of a template, and with `fixes` also that of its corrected copy."""
    cases = workspace.cases(name)
    report = check_template(workspace.folder, name, cases)
    if report.content_hash:
        bundle = TemplateFolder(workspace.folder, LYTEMPLATES).bundle(name)
        profiles = [case.profile for case in cases_of(workspace.folder, name)]
        profiles += [case.profile for case in cases]
        said = (*report.findings, *wrong_calls(bundle), *unknown_fields(bundle, profiles, seen))
        report.findings = list(dict.fromkeys(placed(one, name, bundle) for one in said))
        yield report
        return
    path, correction = workspace.folder / name, None
    with suppress(OSError, UnicodeDecodeError):
        correction = corrected(path.read_text("utf-8"), name)
    if correction is None or not correction.corrections:
        report.findings = [placed(one, name, None) for one in report.findings]
        yield report
        return
    # The damage was the engine's trouble too: it is told once, with what it should have been.
    report.findings = list(_corrections(name, correction))
    report.corrected = correction.text
    if fixes:
        copy = copy_of(path)
        copy.write_text(correction.text, "utf-8")
        report.fixed = copy.relative_to(workspace.folder).as_posix()
    yield report
    if fixes and not correction.problem:
        yield from checked(workspace, report.fixed, seen, fixes=False)


def _corrections(name: str, correction: Corrected) -> Iterator[Finding]:
    for one in correction.corrections:
        said = (
            f"damage from Markdown, as when copied from a page: {one.in_words}; --fix writes a"
            " corrected copy."
        )
        yield Finding("error", said, "", name, one.line, one.column)
    if correction.problem:
        said = f"still does not parse without that damage: {correction.problem}; mend it by hand."
        yield Finding("error", said, "", name, correction.line, correction.column)
