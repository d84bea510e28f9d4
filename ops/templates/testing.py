"""`segrelay template test`: run the cases of templates.

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
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.jsonnet.rendered import TemplateBroken, TemplateFailed
from segrelay.ops.templates.workspace import Folder, Workspace, workspace_of
from segrelay.ops.terminal.console import read_json
from segrelay.ops.terminal.frame import Result
from segrelay.worker.checks.preview import Previewed, preview_rendering, profiles_of, sample_row
from segrelay.worker.contract.printable import plural
from segrelay.worker.errors import UsageWrong

_EXPECTED: Final = ("body", "skip", "error")
_KEYS: Final = frozenset({"name", "event", "settings", *_EXPECTED})


@dataclass(slots=True)
class TestCase:
    """A test case of a template, and what came of it once it was run.

    Args:
        expected: Exactly one of `body`, `skip`, `error`; none in one that is to be filled in.
        came: Exactly one of them.
        difference: Lines of a diff, or one that says what else came; none = as expected.
    """

    path: Path
    index: int
    name: str
    profile: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, Any]
    expected: Mapping[str, Any] = field(repr=False)
    came: Mapping[str, Any] = field(repr=False, default_factory=dict)
    difference: Sequence[str] = ()

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
    return [
        _case(path, index, document)
        for path in case_files(folder, template)
        for index, document in enumerate(_listed(read_json(path)))
    ]


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


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


def run(folder: Path, template: str, cases: Sequence[TestCase]) -> Sequence[TestCase]:
    """Render the cases of a template, and compare the results with what is expected."""
    rows = [sample_row(case.profile, case.settings) for case in cases]
    try:
        outcomes = preview_rendering(folder, template, rows)
    except TemplateBroken as error:
        outcomes = [Previewed("", TemplateFailed(error.message, "", 0)) for _ in cases]
    for case, outcome in zip(cases, outcomes, strict=True):
        kind = {"rendered": "body", "skipped": "skip", "failed": "error"}[outcome.rendering]
        case.came = {kind: outcome.body if kind == "body" else outcome.message}
        case.difference = list(_difference(case.expected, case.came))
    return cases


def _difference(expected: Mapping[str, Any], came: Mapping[str, Any]) -> Iterator[str]:
    if not expected:
        yield "nothing is expected; --update fills in what comes"
    elif "body" in expected and "body" in came:
        lines = (_lines(expected["body"]), _lines(came["body"]))
        yield from difflib.unified_diff(*lines, "expected", "came", lineterm="", n=2)
    elif "error" in expected and "error" in came and str(expected["error"]) in str(came["error"]):
        return
    elif expected != came:
        for said, one in (("expected", expected), ("but came", came)):
            [(kind, value)] = one.items()
            yield f"{said} {'a body' if kind == 'body' else f'{kind}: {value}'}"


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


def write_results(cases: Sequence[TestCase]) -> list[Path]:
    """Write the results of failed cases into their files as expected; return the files."""
    wrong = [one for one in cases if not one.passed]
    for path in (paths := sorted({one.path for one in wrong})):
        content = read_json(path)
        documents = _listed(content)
        for one in wrong:
            if one.path == path:
                old = documents[one.index]
                kept = {key: value for key, value in old.items() if key not in _EXPECTED}
                documents[one.index] = kept | dict(one.came)
        _write(path, documents if isinstance(content, list) else documents[0])
    return paths


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def run_cases(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Below the templates folder; all by default.", metavar="[TEMPLATE]..."),
    ] = None,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Write what comes into the cases.")
    ] = False,
    templates: Folder = None,
) -> Result:
    """Run the cases that lie beside templates.

    A case is JSON: an event (a payload), the trigger's settings, and what has to come: body, skip
    or error. The cases of enter.jsonnet are in enter.case.json, or in the folder enter.cases. With
    --update a template that is named and has no cases gets one of each sample. The exit code is 1
    if a case does not go as expected.
    """
    workspace = workspace_of(templates)
    for name in workspace.names(names) if update and names else ():
        _begin(workspace, name)
    results = {
        name: run(workspace.folder, name, cases_of(workspace.folder, name))
        for name in workspace.names(names or ())
    }
    if names and not any(results.values()):
        raise UsageWrong(
            f"{', '.join(results)}: there are no cases; `segrelay template test NAME --update`"
            " makes some of the samples."
        )
    written = [path for one in results.values() for path in write_results(one)] if update else []
    failed = sum(not one.passed for cases in results.values() for one in cases)
    count = sum(map(len, results.values()))
    filled = f"{plural(count, 'case')}, {failed} filled in: read them before you rely on them."
    documents = [
        {
            "template": name,
            "cases": [
                {
                    "name": one.name,
                    "file": str(one.path),
                    "passed": one.passed,
                    "difference": list(one.difference),
                }
                for one in cases
            ],
        }
        for name, cases in results.items()
    ]
    return Result(
        {"templates": documents, "updated": [str(path) for path in written]},
        *(line for name, cases in results.items() for line in _told(name, cases, updates=update)),
        *(f"{path.relative_to(workspace.folder)} is updated." for path in written),
        notes=[filled if update else f"{plural(count, 'case')}, {failed} not as expected."],
        exit_code=1 if failed and not update else 0,
    )


def _begin(workspace: Workspace, name: str) -> None:
    """Write a case of each sample, without what has to come, for a template that has none."""
    if case_files(workspace.folder, name):
        return
    documents = [
        {"name": case.label, "event": dict(case.profile), "settings": dict(case.settings)}
        for case in workspace.cases(name)
    ]
    stem = (workspace.folder / name).with_suffix("")
    _write(stem.with_name(f"{stem.name}.case.json"), documents)


def _told(name: str, cases: Sequence[TestCase], *, updates: bool) -> Iterator[str]:
    for one in cases:
        word = "ok    " if one.passed else "update" if updates else "failed"
        yield f"{word} {name}: {one.name}"
        if not updates:
            yield from (f"    {line}" for line in one.difference)
