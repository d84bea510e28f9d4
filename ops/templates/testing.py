"""`segrelay template test` and `diff`: run the cases of templates, and compare two versions.

The cases of `enter.jsonnet` stand beside it, in `enter.case.json` or in any `*.json` of the folder
`enter.cases/`; each file holds one case or an array of them:

    {"name": "a member", "event": {…}, "settings": {…}, "body": {…}}

`event` is a payload with one segment event. Expected is exactly one of `body`, `skip` (the message
of a failed assert) and `error` (a part of the message).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nlargest
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

import orjson
import typer

from segrelay.jsonnet.rendered import TemplateBroken, TemplateFailed
from segrelay.ops.state.opened import opened
from segrelay.ops.templates.comparison import (
    Comparison,
    FieldDifference,
    Revision,
    compare_versions,
    compared,
    version,
)
from segrelay.ops.templates.events import WantedEvents, from_file, from_payload, kept
from segrelay.ops.templates.workspace import Folder, TriggerName, Workspace, workspace_of
from segrelay.ops.terminal.console import read_json
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import count_columns, text_columns
from segrelay.worker.checks.preview import Candidate, Previewed, preview_rendering
from segrelay.worker.checks.samples import load_profiles, profile_for, profiles_of
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.errors import UsageWrong

_EXPECTED: Final = ("body", "skip", "error")
_KEYS: Final = frozenset({"name", "event", "settings", *_EXPECTED})


@dataclass(frozen=True, slots=True)
class TestCase:
    """A test case of a template.

    Args:
        expected: Exactly one of `body`, `skip`, `error`; none in one that is to be filled in.
    """

    path: Path
    index: int
    name: str
    profile: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, Any]
    expected: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of a test case.

    Args:
        difference: Lines of a diff, or one that says what else came; none = as expected.
    """

    case: TestCase
    difference: tuple[str, ...]
    came: Mapping[str, Any] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Say whether the case went as expected."""
        return not self.difference


def case_files(folder: Path, template: str) -> list[Path]:
    """Return the files of a template's cases."""
    stem = (folder / template).with_suffix("")
    one = stem.with_name(f"{stem.name}.case.json")
    many = sorted(stem.with_name(f"{stem.name}.cases").glob("*.json"))
    return [*([one] if one.is_file() else []), *many]


def cases_of(folder: Path, template: str) -> list[TestCase]:
    """Return the cases of a template."""
    return [case for path in case_files(folder, template) for case in read_cases(path)]


def read_cases(path: Path) -> list[TestCase]:
    """Return the cases of a file."""
    content = read_json(path)
    documents = content if isinstance(content, list) else [content]
    return [_case(path, index, each) for index, each in enumerate(documents)]


def _case(path: Path, index: int, document: Any) -> TestCase:
    where = f"{path}: case {index + 1}"
    if not isinstance(document, dict):
        raise UsageWrong(f"{where} is no object.")
    unknown = sorted(document.keys() - _KEYS)
    if unknown:
        raise UsageWrong(f"{where} has {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}.")
    profiles = profiles_of(document.get("event"))
    if len(profiles) != 1:
        raise UsageWrong(
            f"{where}: its event has to be a payload with one entry in segment_events."
        )
    expected = {key: document[key] for key in _EXPECTED if key in document}
    settings = document.get("settings", {})
    if len(expected) > 1 or not isinstance(settings, dict):
        raise UsageWrong(f"{where} names one of body, skip and error; its settings are an object.")
    name = str(document.get("name") or f"{path.name} {index + 1}")
    return TestCase(path, index, name, profiles[0], settings, expected)


def run(folder: Path, template: str, cases: Sequence[TestCase]) -> list[CaseResult]:
    """Render the cases of a template, and compare the results with what is expected."""
    verdicts: list[CaseResult] = []
    for _, group in groupby(cases, key=lambda case: orjson.dumps(dict(case.settings))):
        part = list(group)
        profiles = [case.profile for case in part]
        try:
            outcomes = preview_rendering(folder, template, profiles, part[0].settings)
        except TemplateBroken as error:
            outcomes = [Previewed(case.name, TemplateFailed(error.message, "", 0)) for case in part]
        for case, came in zip(part, map(_came, outcomes), strict=True):
            verdicts.append(CaseResult(case, tuple(_difference(case.expected, came)), came))
    return verdicts


def _came(outcome: Previewed) -> dict[str, Any]:
    match outcome.rendering:
        case "rendered":
            return {"body": outcome.body}
        case "skipped":
            return {"skip": outcome.message}
        case "failed":
            return {"error": outcome.message}


def _difference(expected: Mapping[str, Any], came: Mapping[str, Any]) -> Iterator[str]:
    if not expected:
        yield "nothing is expected; --update fills in what comes"
    elif "body" in expected and "body" in came:
        lines = (_lines(expected["body"]), _lines(came["body"]))
        yield from difflib.unified_diff(*lines, "expected", "came", lineterm="", n=2)
    elif not _is_as_expected(expected, came):
        yield f"expected {_in_words(expected)}"
        yield f"but came {_in_words(came)}"


def _is_as_expected(expected: Mapping[str, Any], came: Mapping[str, Any]) -> bool:
    if "error" in expected and "error" in came:
        return str(expected["error"]) in str(came["error"])
    return expected == came


def _in_words(one: Mapping[str, Any]) -> str:
    [(kind, value)] = one.items()
    return "a body" if kind == "body" else f"{kind}: {value}"


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


def write_results(verdicts: Sequence[CaseResult]) -> list[Path]:
    """Write the results of failed cases into their files as expected; return the files."""
    wrong = [one for one in verdicts if not one.passed]
    for path in (paths := sorted({one.case.path for one in wrong})):
        content = read_json(path)
        documents = content if isinstance(content, list) else [content]
        for one in wrong:
            if one.case.path == path:
                old = documents[one.case.index]
                kept = {key: value for key, value in old.items() if key not in _EXPECTED}
                documents[one.case.index] = kept | dict(one.came)
        write(path, documents if isinstance(content, list) else documents[0])
    return paths


def write(path: Path, content: Any) -> None:
    """Write a file of test cases."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def junit(results: Mapping[str, Sequence[CaseResult]]) -> bytes:
    """Return the results as JUnit's XML, with a suite for each template."""
    root = Element("testsuites")
    for template, verdicts in results.items():
        failed = sum(not one.passed for one in verdicts)
        suite = SubElement(
            root, "testsuite", name=template, tests=str(len(verdicts)), failures=str(failed)
        )
        for one in verdicts:
            case = SubElement(suite, "testcase", classname=template, name=one.case.name)
            if not one.passed:
                failure = SubElement(case, "failure", message="it is not as expected")
                failure.text = "\n".join(one.difference)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root) + b"\n"


def run_cases(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Below the templates folder; all by default.", metavar="[TEMPLATE]..."),
    ] = None,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Write what comes into the cases.")
    ] = False,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit's XML here too.", metavar="FILE")
    ] = None,
    templates: Folder = None,
) -> Result:
    """Run the cases that lie beside templates.

    A case is JSON: an event (a payload), the trigger's settings, and what has to come: body, skip
    or error. The cases of enter.jsonnet are in enter.case.json, or in the folder enter.cases. With
    --update a template that is named and has no cases gets one of each sample. The exit code is 1
    if a case does not go as expected.
    """
    workspace = workspace_of(templates)
    if update:
        _begin(workspace, names or ())
    results = {
        name: run(workspace.folder, name, cases_of(workspace.folder, name))
        for name in workspace.names(names or ())
    }
    if names and not any(results.values()):
        raise UsageWrong(
            f"{', '.join(results)}: there are no cases; `segrelay template test NAME --update`"
            " makes some of the samples."
        )
    if junit_file is not None:
        junit_file.write_bytes(junit(results))
    written = [path for one in results.values() for path in write_results(one)] if update else []
    failed = sum(not one.passed for verdicts in results.values() for one in verdicts)
    count = sum(map(len, results.values()))
    filled = f"{plural(count, 'case')}, {failed} filled in: read them before you rely on them."
    return Result(
        _document(results, written),
        *_told(results, written, workspace, updates=update),
        notes=[filled if update else f"{plural(count, 'case')}, {failed} not as expected."],
        exit_code=1 if failed and not update else 0,
    )


def _begin(workspace: Workspace, names: Sequence[str]) -> None:
    for name in workspace.names(names) if names else ():
        if case_files(workspace.folder, name):
            continue
        documents = [
            {"name": case.label, "event": dict(case.profile), "settings": dict(case.settings)}
            for case in workspace.cases(name)
        ]
        stem = (workspace.folder / name).with_suffix("")
        write(stem.with_name(f"{stem.name}.case.json"), documents)


def _document(
    results: Mapping[str, Sequence[CaseResult]], written: Sequence[Path]
) -> dict[str, Any]:
    return {
        "templates": [
            {
                "template": name,
                "cases": [
                    {
                        "name": one.case.name,
                        "file": str(one.case.path),
                        "passed": one.passed,
                        "difference": list(one.difference),
                    }
                    for one in verdicts
                ],
            }
            for name, verdicts in results.items()
        ],
        "updated": [str(path) for path in written],
    }


def _told(
    results: Mapping[str, Sequence[CaseResult]],
    written: Sequence[Path],
    workspace: Workspace,
    *,
    updates: bool,
) -> Iterator[str]:
    other = "update" if updates else "failed"
    for name, verdicts in results.items():
        for one in verdicts:
            yield f"{'ok    ' if one.passed else other} {name}: {one.case.name}"
            for line in () if updates else one.difference:
                yield f"    {line}"
    for path in written:
        yield f"{path.relative_to(workspace.folder)} is updated."


def diff(
    before: Annotated[str, typer.Argument(help="A template, REVISION:TEMPLATE, or a revision.")],
    after: Annotated[str, typer.Argument(help="The same, for what it is compared with.")],
    *,
    events: Annotated[
        Path | None, typer.Option("--events", help="Of this file of payloads.", metavar="FILE")
    ] = None,
    dead_letters: Annotated[bool, typer.Option("--letters", help="Of the dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Of what waits.")] = False,
    recent: Annotated[
        int, typer.Option("--recent", help="Of the newest N that wait or are dead.", metavar="N")
    ] = 0,
    trigger: TriggerName = "",
    templates: Folder = None,
) -> Result:
    """Compare what two versions of a template make of the same events, by field.

    Both are rendered and shaped; what differs is counted, and no value is shown. Without one of the
    options it is the samples. The exit code is 0, also if they differ.
    """
    workspace = workspace_of(templates)
    wanted = WantedEvents(dead_letters, waiting, recent)
    with (
        version(before, workspace.folder, after) as old,
        version(after, workspace.folder, before) as new,
    ):
        chosen = _trigger(workspace, trigger, old, new)
        found = _compared(workspace, chosen, (old, new), events, wanted)
    return Result(
        {"before": before, "after": after, **found.document},
        *_differences(found),
        notes=[
            f"{plural(found.events, 'event')} compared, {found.different} become something else."
        ],
    )


def _trigger(workspace: Workspace, name: str, old: Revision, new: Revision) -> Trigger | None:
    if name:
        return workspace.trigger(name)
    users = [*workspace.triggers(old.template), *workspace.triggers(new.template)]
    return users[0] if users else None


def _compared(
    workspace: Workspace,
    trigger: Trigger | None,
    versions: tuple[Revision, Revision],
    events: Path | None,
    wanted: WantedEvents,
) -> Comparison:
    if trigger is None or workspace.settings is None:
        if wanted.is_any:
            raise UsageWrong("No trigger uses these templates; name one by --trigger.")
        profiles = load_profiles(events) if events else _samples(workspace, versions[0].template)
        return compared(
            *(preview_rendering(one.folder, one.template, profiles, {}) for one in versions)
        )
    candidates = _candidates(workspace.settings, trigger, events, wanted)
    return compare_versions(candidates, workspace.settings, trigger, versions)


def _samples(workspace: Workspace, template: str) -> list[Mapping[str, Any]]:
    own = [case.profile for case in cases_of(workspace.folder, template)]
    return own or [case.profile for case in workspace.cases(template)]


def _candidates(
    settings: Settings, trigger: Trigger, events: Path | None, wanted: WantedEvents
) -> list[Candidate]:
    found: list[Candidate] = []
    if events is not None:
        found += from_file(events, trigger, settings)
    if wanted.is_any:
        with opened() as (_, client):
            found += kept(client, settings, trigger, wanted)
    if events is not None or wanted.is_any:
        return found
    profile = profile_for(settings, trigger, datetime.now(UTC))
    return from_payload(f"The sample of {trigger.name}", profile, trigger, settings)


def _differences(found: Comparison) -> Iterator[str | Table]:
    for words, count in found.outcomes.most_common():
        yield f"{plural(count, 'event')}: {words}"
    for title, fields in (("rendered", found.rendered), ("sent", found.sent)):
        if fields:
            yield f"{title}:"
            yield Table(
                ("field", *count_columns("added", "removed", "changed"), *text_columns("how")),
                [_row(name, one) for name, one in fields.items()],
            )


def _row(name: str, one: FieldDifference) -> tuple[object, ...]:
    kinds = ", ".join(nlargest(3, one.kinds, key=one.kinds.__getitem__))
    return name, one.added, one.removed, one.changed, kinds
