"""Test cases of a template: files beside it that say what an event becomes.

`enter.case.json`, or any `*.json` in the folder `enter.cases/`, beside `enter.jsonnet`; each holds
one case or an array of them:

    {"name": "a member", "event": {…}, "settings": {…}, "body": {…}}

`event` is a payload with one segment event. Expected is exactly one of `body`, `skip` (the message
of a failed assert) and `error` (a part of the message).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import orjson

from ops.terminal.files import read_json
from worker.checks.rehearsal import Rehearsed, rehearse_rendering
from worker.checks.samples import profiles_of
from worker.errors import TemplateBroken, UsageWrong
from worker.jsonnet.rendered import TemplateFailed

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
        texts = [(case.name, orjson.dumps(dict(case.profile))) for case in part]
        try:
            outcomes = rehearse_rendering(folder, template, texts, part[0].settings)
        except TemplateBroken as error:
            outcomes = [Rehearsed(case.name, TemplateFailed(error.message, "", 0)) for case in part]
        for case, came in zip(part, map(_came, outcomes), strict=True):
            verdicts.append(CaseResult(case, tuple(_difference(case.expected, came)), came))
    return verdicts


def _came(outcome: Rehearsed) -> dict[str, Any]:
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


def update(verdicts: Sequence[CaseResult]) -> list[Path]:
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
