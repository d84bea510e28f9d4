"""`segrelay template test` and `diff`: run test cases, and compare two versions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from xml.etree.ElementTree import Element, SubElement, tostring

import orjson
import typer

from ops.state.opened import opened
from ops.templates.testing import cases as testing
from ops.templates.testing.cases import CaseResult
from ops.templates.trying.comparison import Comparison, FieldDifference, Revision, compared, version
from ops.templates.trying.events import WantedEvents, from_file, from_payload, kept
from ops.templates.workspace import Folder, TriggerName, Workspace, workspace_of
from ops.terminal.console import mention, print_json, say, table
from ops.terminal.options import Json
from ops.terminal.tables import count_columns, text_columns
from worker.checks.rehearsal import Candidate, Rehearsed, rehearse_rendering, rehearse_template
from worker.checks.samples import load_profiles, profile_for
from worker.contract.settings import Trigger
from worker.errors import UsageWrong


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
    json: Json = False,
) -> None:
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
        name: testing.run(workspace.folder, name, testing.cases_of(workspace.folder, name))
        for name in workspace.names(names or ())
    }
    if names and not any(results.values()):
        raise UsageWrong(
            f"{', '.join(results)}: there are no cases; `segrelay template test NAME --update`"
            " makes some of the samples."
        )
    if junit_file is not None:
        junit_file.write_bytes(junit(results))
    written = [path for one in results.values() for path in testing.update(one)] if update else []
    if json:
        print_json(_document(results, written))
    else:
        _tell(results, written, workspace, updates=update)
    if not update and not all(one.passed for verdicts in results.values() for one in verdicts):
        raise typer.Exit(1)


def _begin(workspace: Workspace, names: Sequence[str]) -> None:
    for name in workspace.names(names) if names else ():
        if testing.case_files(workspace.folder, name):
            continue
        documents = [
            {"name": case.label, "event": dict(case.profile), "settings": dict(case.settings)}
            for case in workspace.cases(name)
        ]
        stem = (workspace.folder / name).with_suffix("")
        testing.write(stem.with_name(f"{stem.name}.case.json"), documents)


def _document(
    results: Mapping[str, Sequence[testing.CaseResult]], written: Sequence[Path]
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


def _tell(
    results: Mapping[str, Sequence[testing.CaseResult]],
    written: Sequence[Path],
    workspace: Workspace,
    *,
    updates: bool,
) -> None:
    other = "update" if updates else "failed"
    for name, verdicts in results.items():
        for one in verdicts:
            say(f"{'ok    ' if one.passed else other} {name}: {one.case.name}")
            for line in () if updates else one.difference:
                say(f"    {line}")
    for path in written:
        say(f"{path.relative_to(workspace.folder)} is updated.")
    verdicts = [one for each in results.values() for one in each]
    failed = sum(not one.passed for one in verdicts)
    if updates:
        mention(f"{len(verdicts)} cases, {failed} filled in: read them before you rely on them.")
        return
    mention(f"{len(verdicts)} cases, {failed} not as expected.")


def diff(
    before: Annotated[str, typer.Argument(help="A template, REVISION:TEMPLATE, or a revision.")],
    after: Annotated[str, typer.Argument(help="The same, for what it is compared with.")],
    *,
    events: Annotated[
        Path | None, typer.Option("--events", help="Of this file of payloads.", metavar="FILE")
    ] = None,
    letters: Annotated[bool, typer.Option("--letters", help="Of the dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Of what waits.")] = False,
    recent: Annotated[
        int, typer.Option("--recent", help="Of the newest N that wait or are dead.", metavar="N")
    ] = 0,
    trigger: TriggerName = "",
    templates: Folder = None,
    json: Json = False,
) -> None:
    """Compare what two versions of a template make of the same events, by field.

    Both are rendered and shaped; what differs is counted, and no value is shown. Without one of the
    options it is the samples. The exit code is 0, also if they differ.
    """
    workspace = workspace_of(templates)
    wanted = WantedEvents(letters, waiting, recent)
    with (
        version(before, workspace.folder, after) as old,
        version(after, workspace.folder, before) as new,
    ):
        chosen = _trigger(workspace, trigger, old, new)
        found = _compared(workspace, chosen, (old, new), events, wanted)
    if json:
        print_json({"before": before, "after": after, **found.document})
    else:
        _tell_difference(found)


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
        named = [(str(n), orjson.dumps(one)) for n, one in enumerate(profiles, 1)]
        return compared(*(rehearse_rendering(v.folder, v.template, named, {}) for v in versions))
    candidates = _candidates(workspace, trigger, events, wanted)
    return compared(*(_delivered(workspace, trigger, v, candidates) for v in versions))


def _samples(workspace: Workspace, template: str) -> list[Mapping[str, Any]]:
    own = [case.profile for case in testing.cases_of(workspace.folder, template)]
    return own or [case.profile for case in workspace.cases(template)]


def _candidates(
    workspace: Workspace, trigger: Trigger, events: Path | None, wanted: WantedEvents
) -> list[Candidate]:
    settings = workspace.settings
    assert settings is not None
    now_us = time.time_ns() // 1_000
    found: list[Candidate] = []
    if events is not None:
        found += from_file(events, trigger, settings, now_us=now_us)
    if wanted.is_any:
        with opened() as (_, client):
            found += kept(client, settings, trigger, wanted)
    if events is not None or wanted.is_any:
        return found
    profile = profile_for(settings, trigger, datetime.now(UTC))
    return from_payload(f"The sample of {trigger.name}", profile, trigger, settings, now_us=now_us)


def _delivered(
    workspace: Workspace, trigger: Trigger, one: Revision, candidates: Sequence[Candidate]
) -> list[Rehearsed]:
    assert workspace.settings is not None
    return rehearse_template(
        candidates,
        trigger,
        workspace.settings,
        template=one.template,
        folder=one.folder,
        now_us=time.time_ns() // 1_000,
    )


def _tell_difference(found: Comparison) -> None:
    mention(f"{found.events} events compared, {found.different} become something else.")
    for words, count in found.outcomes.most_common():
        say(f"{count} events: {words}")
    for title, fields in (("rendered", found.rendered), ("sent", found.sent)):
        if fields:
            say(f"{title}:")
            table(
                ("field", *count_columns("added", "removed", "changed"), *text_columns("how")),
                [_row(name, one) for name, one in fields.items()],
            )


def _row(name: str, one: FieldDifference) -> tuple[object, ...]:
    kinds = ", ".join(kind for kind, _ in one.kinds.most_common(3))
    return name, one.added, one.removed, one.changed, kinds
