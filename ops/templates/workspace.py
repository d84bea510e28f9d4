"""The templates folder of a command: triggers, samples, cases and their test, new templates.

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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.jsonnet.rendered import TemplateBroken, TemplateFailed
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.templates import LYTICS_TYPES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import (
    Previewed,
    preview_rendering,
    profile_for,
    profiles_of,
    sample_profile,
    sample_row,
)
from segrelay.worker.contract.printable import plural, read_json_values
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import UsageWrong

Folder = Annotated[
    Path | None,
    typer.Option(
        "--templates", help="This folder; the configuration is not read then.", metavar="DIR"
    ),
]
TriggerName = Annotated[
    str, typer.Option("--trigger", help="As a delivery of this trigger.", metavar="TRIGGER")
]
TemplateArgument = Annotated[str, typer.Argument(help="Below the templates folder.")]


SUFFIX: Final = ".jsonnet"
"""The ending of a template that may be left out."""
_EXPECTED: Final = ("body", "skip", "error")
_KEYS: Final = frozenset({"name", "event", "settings", *_EXPECTED})


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A sample to render, or a case of a test.

    Args:
        label: The case's kind and name, e.g. `enter` or `trigger vip-enter`.
        profile: The profile, with one entry in `segment_events`.
        settings: The trigger's settings.
        document: The case as its file holds it; {} of a sample.
    """

    label: str
    profile: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, Any]
    document: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def expected(self) -> Mapping[str, Any]:
        """Return what is expected; nothing of a sample, or in a case that is to be filled in."""
        return {key: self.document[key] for key in _EXPECTED if key in self.document}


@dataclass(frozen=True, slots=True)
class Workspace:
    """A templates folder, with the configuration that uses it.

    Args:
        settings: The configuration; None where the folder was named and no configuration is read.
    """

    folder: Path
    settings: Settings | None

    def names(self, wanted: Sequence[str] = ()) -> list[str]:
        """Return the names of templates, all by default."""
        found = [self.name_of(name) for name in wanted] or names_in(self.folder)
        if not found:
            raise UsageWrong(
                f"{self.folder}: there is no template ({' or '.join(LYTICS_TYPES)});"
                " `segrelay template new NAME` writes one."
            )
        return found

    def name_of(self, given: str) -> str:
        """Return a template's name from its name or, as shells complete it, from its path."""
        name = full_name(given, self.folder)
        folder, path = self.folder.resolve(), Path(name).resolve()
        if not Path(name).is_absolute() and (folder / name).is_file():
            return name
        is_below = path.is_file() and path.is_relative_to(folder)
        return path.relative_to(folder).as_posix() if is_below else name

    def triggers(self, template: str) -> list[Trigger]:
        """Return the triggers that use a template."""
        if self.settings is None:
            return []
        return [one for one in self.settings.triggers.values() if one.template == template]

    def users(self, template: str) -> list[Trigger]:
        """Return the triggers that make a body, a URL or a header with a template."""
        if self.settings is None:
            return []
        settings = self.settings
        return [one for one in settings.triggers.values() if template in files_of(settings, one)]

    def trigger(self, name: str) -> Trigger:
        """Return the trigger of this name."""
        if self.settings is None:
            raise UsageWrong("--trigger needs the configuration, which --templates leaves out.")
        return configured("trigger", name, self.settings.triggers)

    def cases(self, template: str) -> list[Case]:
        """Return the samples of a template's triggers, or else the shipped samples."""
        now = datetime.now(UTC)
        if self.settings is not None and (triggers := self.triggers(template)):
            return [
                Case(
                    f"trigger {one.name}",
                    profile_for(self.settings, one, now),
                    dict(one.settings),
                )
                for one in triggers
            ]
        return [Case(way.value, sample_profile(way, now), {}) for way in Direction]


def files_of(settings: Settings, trigger: Trigger) -> set[str]:
    """Return the names of a trigger's templates: of its body, its URL, and its headers."""
    headers = settings.http_of(trigger).header_templates
    return {trigger.template, trigger.url.template, *headers.values()}


def workspace_of(named: Path | None) -> Workspace:
    """Return the named folder, or else the configured one."""
    if named is None:
        settings = load_settings()
        return Workspace(settings.templates_folder, settings)
    if not named.is_dir():
        raise UsageWrong(f"{named}: there is no such folder.")
    return Workspace(named, None)


def full_name(name: str, folder: Path) -> str:
    """Return a template's name with its suffix, which may be left out.

    Without one it is Jsonnet, unless the folder has a template in JavaScript alone.
    """
    if Path(name).suffix in {*LYTICS_TYPES, ".libsonnet"} or (folder / name).is_file():
        return name
    named = (name + suffix for suffix in LYTICS_TYPES)
    return next((one for one in named if (folder / one).is_file()), name + SUFFIX)


def names_in(folder: Path) -> list[str]:
    """Return the names of all templates of a folder."""
    found = (path for path in folder.rglob("*") if path.suffix in LYTICS_TYPES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def shipped_models() -> list[str]:
    """Return the names of the shipped templates, without their suffix."""
    names = names_in(SHIPPED_FOLDER)
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]


_STARTS: Final = Path(__file__).with_name("starts")
"""A commented template to begin with for each API and language; `{name}` in it is its name."""


def write_new(folder: Path, name: str, model: str, *, api: str = "insider") -> Path:
    """Write a new template: a copy of a shipped one, or the commented start for an API."""
    path = folder / full_name(name, folder)
    if path.name != Path(name).name and Path(name).suffix[1:].isalpha():
        raise UsageWrong(f"{name}: a template ends in .jsonnet, .js or .libsonnet, or in nothing.")
    if model and path.suffix == ".js":
        raise UsageWrong("The shipped templates are Jsonnet; a template in JavaScript begins bare.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageWrong(f"{name} leads outside of {folder}.")
    if path.exists():
        raise UsageWrong(f"{path}: there is a file already; choose another name.")
    suffix = ".js" if path.suffix == ".js" else SUFFIX
    start = (_STARTS / f"{api}{suffix}").read_text("utf-8")
    text = start.replace("{name}", str(path.relative_to(folder)))
    if model:
        short = model.removesuffix(SUFFIX)
        if short not in shipped_models():
            raise UsageWrong(
                f"There is no model {model}; there are: {', '.join(shipped_models())}."
            )
        text = (SHIPPED_FOLDER / (short + SUFFIX)).read_text("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def cases_of(folder: Path, template: str) -> list[Case]:
    """Return the cases of a template's test."""
    path = _case_file(folder, template)
    documents = read_json_values(path) if path.is_file() else []
    return [_case(path, number, document) for number, document in enumerate(documents, 1)]


def _case_file(folder: Path, template: str) -> Path:
    """Return the file of a template's cases, which may not be there."""
    return (folder / template).with_suffix(".case.json")


def _case(path: Path, number: int, document: Any) -> Case:
    where = f"{path}: case {number}"
    if not isinstance(document, dict):
        raise UsageWrong(f"{where} is no object.")
    unknown = sorted(document.keys() - _KEYS)
    if unknown:
        raise UsageWrong(f"{where} has {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}.")
    profiles, settings = profiles_of(document.get("event")), document.get("settings", {})
    if len(profiles) != 1:
        raise UsageWrong(
            f"{where}: its event has to be a payload with one entry in segment_events."
        )
    label = str(document.get("name") or f"{path.name} {number}")
    case = Case(label, profiles[0], settings, document)
    if len(case.expected) > 1 or not isinstance(settings, dict):
        raise UsageWrong(f"{where} names one of body, skip and error; its settings are an object.")
    return case


def _results(folder: Path, template: str, cases: Sequence[Case]) -> Iterator[Mapping[str, Any]]:
    """Yield what comes of each case: one of `body`, `skip`, `error`."""
    rows = [sample_row(case.profile, case.settings) for case in cases]
    try:
        outcomes = preview_rendering(folder, template, rows)
    except TemplateBroken as error:
        outcomes = [Previewed("", TemplateFailed(error.message, "", 0)) for _ in cases]
    for one in outcomes:
        kind = {"rendered": "body", "skipped": "skip", "failed": "error"}[one.rendering]
        yield {kind: one.body if kind == "body" else one.message}


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
    documents: list[dict[str, Any]] = []
    updated: list[Path] = []
    lines: list[str] = []
    count = failed = 0
    for name in workspace.names(names or ()):
        cases, path = cases_of(workspace.folder, name), _case_file(workspace.folder, name)
        if update and names and not cases:
            for one in workspace.cases(name):
                document = {"name": one.label, "event": one.profile, "settings": one.settings}
                cases.append(replace(one, document=document))
        tested: list[dict[str, Any]] = []
        filled: list[dict[str, Any]] = []
        for case, came in zip(cases, _results(workspace.folder, name, cases), strict=True):
            difference = list(_difference(case.expected, came))
            passed = {"name": case.label, "file": str(path), "passed": not difference}
            tested.append(passed | {"difference": difference})
            word = "ok    " if not difference else "update" if update else "failed"
            lines.append(f"{word} {name}: {case.label}")
            lines += [f"    {line}" for line in difference if not update]
            rest = {key: value for key, value in case.document.items() if key not in _EXPECTED}
            filled.append({**rest, **(came if difference else case.expected)})
            failed += bool(difference)
        count += len(cases)
        documents.append({"template": name, "cases": tested})
        if update and not all(one["passed"] for one in tested):
            path.write_text(_written(filled) + "\n", "utf-8")
            updated.append(path)
    if names and not count:
        raise UsageWrong(
            f"{', '.join(one['template'] for one in documents)}: there are no cases; `segrelay"
            " template test NAME --update` makes some of the samples."
        )
    told = f"{plural(count, 'case')}, {failed}"
    return Result(
        {"templates": documents, "updated": [str(path) for path in updated]},
        *lines,
        *(f"{path.relative_to(workspace.folder)} is updated." for path in updated),
        notes=[
            f"{told} filled in: read them before you rely on them."
            if update
            else f"{told} not as expected."
        ],
        exit_code=1 if failed and not update else 0,
    )
