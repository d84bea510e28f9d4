"""Checks templates: each sample renders to a valid body, the same with every engine.

Samples are rendered in processes of their own: a template may kill the one that renders it. Other
engines render the untouched files.
Fields that a template reads, and no profile has, are named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.javascript.source import fields_read, without_comments
from segrelay.jsonnet.accelerated import Accelerator
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import EngineModule, judge, judges
from segrelay.jsonnet.files import Bundle, TemplateFolder, shown
from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.syntax.tokens import location
from segrelay.ops.templates.workspace import Case, Workspace, cases_of
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
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.settings.sections import AUDIENCE_ATTRIBUTE

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
    for path, did, mine, other in differences(ours, theirs):
        if did != "changed" or mine != other:  # 1 and 1.0 are the same
            left = "nothing" if did == "added" else mine
            right = "nothing" if did == "left out" else other
            return f"{_shown(left)}, {_shown(right)}, at {path or 'the top'}"
    return ""


def _shown(value: object) -> str:
    if isinstance(value, Failure):
        return f"an error ({value.message})"
    return json.dumps(value, default=str)[:80]


@dataclass(slots=True)
class TemplateReport:
    """The check of one template.

    Args:
        template: The path, relative to the templates folder.
        content_hash: The version's hash; "" where the template does not load.
        renders: The result of each case, in words, by the case's label.
        findings: The findings, in the order in which they were found.
        not_compiled: The reason why only Jsonnet renders it; "" where it is compiled, too.
        language: The language that it is written in; one other than Jsonnet has a single engine.
    """

    template: str
    content_hash: str
    renders: Mapping[str, str]
    findings: Sequence[Finding]
    not_compiled: str = ""
    language: str = "Jsonnet"

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
    rendered: list[tuple[Case, Result]] = []
    killers: list[Finding] = []
    for case, result in zip(cases, results, strict=True):
        if not isinstance(result, Killed):
            rendered.append((case, result))
            continue
        message = (
            f"rendering the sample ({case.label}) ends or hangs the process: look for a value that"
            " refers to itself, an endless recursion, or a huge repetition."
        )
        killers.append(Finding("error", message))
    if killers:
        return TemplateReport(template, bundle.content_hash, {}, killers)
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
    for settings, alike in groupby(cases, lambda case: orjson.dumps(dict(case.settings))):
        group = list(alike)
        profiles = [orjson.dumps(dict(case.profile)) for case in group]
        for engine in judges():
            values = judge(engine, bundle, profiles, settings)
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
        finding: The finding, about a field of the body that its message names, or about none.
        template: The template's name.
        bundle: The template with its imports; None where it does not load.
    """
    file, line, column = finding.file or template, finding.line, finding.column
    message = finding.message
    for prefix in (f"{file}:{line}:{column}: ", f"{file}: "):
        message = message.removeprefix(prefix)
    if bundle and not line:
        text = without_comments(bundle.files[bundle.root].text)
        words = _WORD.findall(message)
        wanted = [word for word in words if word in _SPEAKING] or [w for w in words if "_" in w]
        fields = (re.search(rf"[\"']?\b{word}\b[\"']?\s*\+?:", text) for word in wanted)
        if field := next(filter(None, fields), None):
            line, column = location(text, field.start())
    return replace(finding, file=file, message=message, line=line, column=column)


_ALWAYS: Final = frozenset({"segment_events", "payload_id", "_id", "_uid", "_segments"})
"""Fields that every payload of Lytics may have, even if no sample has them."""
_NEAR: Final = 0.75
_OURS: Final = "lib/"


def asked_for(bundle: Bundle) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield the name of each field of a profile that is read, with file, line and column."""
    for file in bundle.files.values():
        if not shown(file.name).startswith(_OURS):
            for name, at in fields_read(file.text):
                yield name, (shown(file.name), *location(file.text, at))


def unknown_fields(bundle: Bundle, profiles: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield a finding for each field that no sample has, but one that looks like it.

    Others are not named: samples are small.
    """
    known = _ALWAYS.union(*profiles)
    asked = dict(reversed(list(asked_for(bundle))))  # the first place of each
    for name, place in reversed(asked.items()):
        near = "" if name in known else next(iter(get_close_matches(name, known, 1, _NEAR)), "")
        if near:
            said = f"no sample has the field {name}; did you mean {near}?"
            yield Finding("warning", said, "", *place)


def checked(workspace: Workspace, name: str) -> TemplateReport:
    """Return the check of a template, with all findings at their places."""
    cases = workspace.cases(name)
    report = check_template(workspace.folder, name, cases)
    said, bundle = report.findings, None
    if report.content_hash:
        bundle = TemplateFolder(workspace.folder, LYTEMPLATES).bundle(name)
        profiles = [case.profile for case in cases_of(workspace.folder, name)]
        profiles += [case.profile for case in cases]
        said = (*said, *unknown_fields(bundle, profiles))
    report.findings = list(dict.fromkeys(placed(one, name, bundle) for one in said))
    return report
