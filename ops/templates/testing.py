"""`segrelay template test`: run the cases of templates.

The cases of `enter.jsonnet` stand beside it, in `enter.case.json`, which holds one case or an array
of them:

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
from segrelay.ops.templates.workspace import Folder, workspace_of
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
        document: The case as its file holds it: `event`, perhaps `settings`, and the result.
        came: Exactly one of `body`, `skip`, `error`.
        difference: Lines of a diff, or one that says what else came; none = as expected.
    """

    name: str
    profile: Mapping[str, Any] = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)
    came: Mapping[str, Any] = field(repr=False, default_factory=dict)
    difference: Sequence[str] = ()

    @property
    def expected(self) -> Mapping[str, Any]:
        """Return what is expected; nothing in a case that is to be filled in."""
        return {key: self.document[key] for key in _EXPECTED if key in self.document}


def case_file(folder: Path, template: str) -> Path:
    """Return the file of a template's cases, which may not be there."""
    stem = (folder / template).with_suffix("")
    return stem.with_name(f"{stem.name}.case.json")


def cases_of(folder: Path, template: str) -> list[TestCase]:
    """Return the cases of a template."""
    path = case_file(folder, template)
    content = read_json(path) if path.is_file() else []
    documents = content if isinstance(content, list) else [content]
    return [_case(path, number, document) for number, document in enumerate(documents, 1)]


def _case(path: Path, number: int, document: Any) -> TestCase:
    where = f"{path}: case {number}"
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
    case = TestCase(str(document.get("name") or f"{path.name} {number}"), profiles[0], document)
    if len(case.expected) > 1 or not isinstance(document.get("settings", {}), dict):
        raise UsageWrong(f"{where} names one of body, skip and error; its settings are an object.")
    return case


def run(folder: Path, template: str, cases: Sequence[TestCase]) -> Sequence[TestCase]:
    """Render the cases of a template, and compare the results with what is expected."""
    rows = [sample_row(case.profile, case.document.get("settings", {})) for case in cases]
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
        old, new = (_written(one["body"], sort_keys=True).splitlines() for one in (expected, came))
        yield from difflib.unified_diff(old, new, "expected", "came", lineterm="", n=2)
    elif "error" in expected and "error" in came and str(expected["error"]) in str(came["error"]):
        return
    elif expected != came:
        for said, one in (("expected", expected), ("but came", came)):
            [(kind, value)] = one.items()
            yield f"{said} {'a body' if kind == 'body' else f'{kind}: {value}'}"


def _written(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=sort_keys)


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
    or error. The cases of enter.jsonnet are in enter.case.json. With --update a template that is
    named and has no cases gets one of each sample. The exit code is 1 if a case does not go as
    expected.
    """
    workspace = workspace_of(templates)
    results: dict[str, Sequence[TestCase]] = {}
    for name in workspace.names(names or ()):
        cases = cases_of(workspace.folder, name)
        if update and names and not cases:
            samples = [
                {"name": one.label, "event": dict(one.profile), "settings": dict(one.settings)}
                for one in workspace.cases(name)
            ]
            cases = [_case(Path(name), number, one) for number, one in enumerate(samples, 1)]
        results[name] = run(workspace.folder, name, cases)
    if names and not any(results.values()):
        raise UsageWrong(
            f"{', '.join(results)}: there are no cases; `segrelay template test NAME --update`"
            " makes some of the samples."
        )
    updated = []
    for name, tested in results.items():
        if update and any(one.difference for one in tested):
            documents = [
                {key: value for key, value in one.document.items() if key not in _EXPECTED}
                | dict(one.came if one.difference else one.expected)
                for one in tested
            ]
            path = case_file(workspace.folder, name)
            path.write_text(_written(documents) + "\n", "utf-8")
            updated.append(path)
    failed = sum(bool(one.difference) for tested in results.values() for one in tested)
    count = plural(sum(map(len, results.values())), "case")
    filled = f"{count}, {failed} filled in: read them before you rely on them."
    told = [
        {
            "template": name,
            "cases": [
                {
                    "name": one.name,
                    "file": str(case_file(workspace.folder, name)),
                    "passed": not one.difference,
                    "difference": list(one.difference),
                }
                for one in tested
            ],
        }
        for name, tested in results.items()
    ]
    return Result(
        {"templates": told, "updated": [str(path) for path in updated]},
        *(
            line
            for name, tested in results.items()
            for line in _lines(name, tested, updates=update)
        ),
        *(f"{path.relative_to(workspace.folder)} is updated." for path in updated),
        notes=[filled if update else f"{count}, {failed} not as expected."],
        exit_code=1 if failed and not update else 0,
    )


def _lines(name: str, cases: Sequence[TestCase], *, updates: bool) -> Iterator[str]:
    for one in cases:
        word = "ok    " if not one.difference else "update" if updates else "failed"
        yield f"{word} {name}: {one.name}"
        if not updates:
            yield from (f"    {line}" for line in one.difference)
