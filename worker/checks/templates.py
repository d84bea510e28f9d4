"""Checks on samples that a template renders, and that all engines agree about its value.

Samples are rendered in processes of their own: a template may kill the one that renders it. Other
engines render the untouched files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, assert_never

import orjson

from segrelay.jsonnet.accelerated import Accelerator
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import EngineModule, judge, judges
from segrelay.jsonnet.files import Bundle, TemplateFolder
from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.audiences import misplaced_of, warnings_of
from segrelay.worker.checks.preview import Previewed, differences, render_apart
from segrelay.worker.checks.samples import Finding, Severity, in_want_of_id, sample_row
from segrelay.worker.contract.events import has_id, with_id
from segrelay.worker.contract.settings import AUDIENCE_ATTRIBUTE, DEFAULT_AUDIENCE_ATTRIBUTE

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
    ours = _value_of(result)
    different = {
        engine: difference
        for engine, text in said.items()
        if text is not None and (difference := _difference(ours, _read(text)))
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


def _read(text: str | Failure) -> Any:
    return text if isinstance(text, Failure) else json.loads(text)


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


def _value_of(result: Result) -> Any:
    match result:
        case Rendered(body):
            return json.loads(body)
        case Asserted(message):
            return Failure(message, asserted=True)
        case TemplateFailed(message):
            return Failure(message)
        case _:
            assert_never(result)


def _shown(value: object) -> str:
    if isinstance(value, Failure):
        return f"an error ({value.message})"
    return json.dumps(value, default=str)[:80]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A sample to render.

    Args:
        label: Its kind and name, e.g. `enter` or `trigger vip-enter`.
        profile: With one entry in `segment_events`.
        settings: The trigger's settings.
        unidentified: Audiences whose id is not known, so that events which are made from rows have
            none; () = all have one, None = it is not known which audiences.
    """

    label: str
    profile: Mapping[str, Any]
    settings: Mapping[str, Any]
    unidentified: Sequence[str] | None = ()

    @property
    def text(self) -> bytes:
        """The profile as the renderer takes it."""
        return orjson.dumps(dict(self.profile))


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """The check of one template.

    Args:
        template: Relative to the templates folder.
        content_hash: "" where it does not load.
        renders: For each case what came out, in words.
        findings: In the order of finding.
        not_compiled: Because of what only Jsonnet renders it; "" where it is compiled, too.
        needed_engine: The cases that needed the engine although it is compiled, and why.
        language: The language that it is written in; one other than Jsonnet has a single engine.
    """

    template: str
    content_hash: str
    renders: Mapping[str, str]
    findings: Sequence[Finding]
    not_compiled: str = ""
    needed_engine: Mapping[str, str] = field(default_factory=dict)
    language: str = "Jsonnet"

    @property
    def is_fit(self) -> bool:
        """Say whether a template passed: nothing but warnings was found."""
        return all(finding.severity != "error" for finding in self.findings)


def check_template(folder: Path, template: str, cases: Sequence[Case]) -> TemplateReport:
    """Load a template, render the cases, and compare with what other engines make of it."""
    try:
        bundle = TemplateFolder(folder, LYTEMPLATES).bundle(template)
        results = render_apart(bundle, [sample_row(case.text, case.settings) for case in cases])
    except TemplateBroken as error:
        location = (error.file, error.line, error.column)
        return TemplateReport(template, "", {}, [Finding("error", error.message, "", *location)])
    both = list(zip(cases, results, strict=True))
    killers = [_kills(case.label) for case, result in both if isinstance(result, Killed)]
    if killers:
        return TemplateReport(template, bundle.content_hash, {}, killers)
    rendered = [(case, result) for case, result in both if not isinstance(result, Killed)]
    renders = {case.label: Previewed("", result).in_words for case, result in rendered}
    findings = [*_findings_about_renders(rendered, renders), *_without_ids(bundle, rendered)]
    if bundle.language:
        name = bundle.language.name
        return TemplateReport(template, bundle.content_hash, renders, findings, language=name)
    said = _judged(bundle, cases)
    for case, result in rendered:
        findings += disagreements(case.label, result, said[case])
    accelerator = Accelerator.of(template, bundle)
    return TemplateReport(
        template,
        bundle.content_hash,
        renders,
        findings,
        accelerator.why_not,
        _needed_engine(accelerator, cases),
    )


def _without_ids(bundle: Bundle, rendered: Sequence[tuple[Case, Result]]) -> Iterator[Finding]:
    """Yield a warning for each case that fails for want of an id, as it is known of no audience."""
    cases = [
        case
        for case, result in rendered
        if case.unidentified != () and isinstance(result, Rendered) and has_id(case.profile)
    ]
    texts = [orjson.dumps(with_id(dict(case.profile), "")) for case in cases]
    rows = [sample_row(text, case.settings) for text, case in zip(texts, cases, strict=True)]
    for case, result in zip(cases, render_apart(bundle, rows), strict=True):
        if isinstance(result, TemplateFailed):
            message = in_want_of_id(result.message, case.unidentified or ())
            location = (result.file, result.line, int(result.line > 0))
            yield Finding("warning", f"{message} ({case.label})", "", *location)


def _needed_engine(accelerator: Accelerator, cases: Sequence[Case]) -> dict[str, str]:
    """Return why cases need the engine although the template is compiled, by their label."""
    return {
        case.label: accelerator.doubt
        for case in (cases if accelerator.is_trusted else ())
        if accelerator.answer(case.text, case.settings) is None
    }


def _judged(bundle: Bundle, cases: Sequence[Case]) -> dict[Case, dict[EngineModule, Said]]:
    """Return the answer of each engine to each case."""
    said: dict[Case, dict[EngineModule, Said]] = {case: {} for case in cases}
    groups: dict[bytes, list[Case]] = {}
    for case in cases:
        groups.setdefault(orjson.dumps(dict(case.settings)), []).append(case)
    for engine in judges():
        for settings, group in groups.items():
            values = judge(engine, bundle, [case.text for case in group], settings)
            for case, value in zip(group, values, strict=True):
                said[case][engine] = value
    return said


def _kills(label: str) -> Finding:
    return Finding(
        "error",
        f"rendering the sample ({label}) ends or hangs the process: look for a value that refers to"
        " itself, an endless recursion, or a huge repetition.",
    )


def _fails_for_all(results: Sequence[Result], said: str) -> Finding:
    """Return the finding that all samples fail, with the place if they share one failure."""
    failures = {result for result in results if isinstance(result, TemplateFailed)}
    if len(failures) != 1:
        return Finding("error", f"it fails for every sample ({said}).")
    [failure] = failures
    message = f"it fails for every sample: {failure.message}."
    return Finding("error", message, "", failure.file, failure.line, int(failure.line > 0))


def _findings_about_renders(
    rendered: Sequence[tuple[Case, Result]], renders: Mapping[str, str]
) -> Iterator[Finding]:
    results = [result for _, result in rendered]
    if results and not any(isinstance(result, Rendered) for result in results):
        said = "; ".join(f"{label}: {words}" for label, words in renders.items())
        if any(isinstance(result, Asserted) for result in results):
            yield Finding("warning", f"no sample renders ({said}).")
        else:
            yield _fails_for_all(results, said)
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
