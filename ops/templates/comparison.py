"""`segrelay template diff`: how the results of two versions of a template differ, also of git's."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.ops.state.opened import opened
from segrelay.ops.templates.render import field_of, from_payload, kept
from segrelay.ops.templates.testing import cases_of
from segrelay.ops.templates.workspace import (
    Folder,
    TriggerName,
    Workspace,
    full_name,
    workspace_of,
)
from segrelay.ops.terminal.console import read_json_values
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import count_columns, text_columns
from segrelay.worker.checks.preview import (
    Previewed,
    differences,
    load_profiles,
    preview,
    preview_rendering,
    profile_for,
    sample_row,
)
from segrelay.worker.contract.printable import plural
from segrelay.worker.errors import UsageWrong

_KINDS: Final = {
    type(None): "null", bool: "boolean", int: "number", float: "number", str: "text",
    list: "empty list", dict: "empty object",
}  # fmt: skip


def diff(
    before: Annotated[str, typer.Argument(help="A template, or REVISION:TEMPLATE.")],
    after: Annotated[str, typer.Argument(help="The same, for what it is compared with.")],
    *,
    events: Annotated[
        Path | None, typer.Option("--events", help="Of this file of payloads.", metavar="FILE")
    ] = None,
    dead_letters: Annotated[bool, typer.Option("--letters", help="Of the dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Of what waits.")] = False,
    trigger: TriggerName = "",
    templates: Folder = None,
) -> Result:
    """Compare what two versions of a template make of the same events, by field.

    Both are rendered and shaped; what differs is counted, and no value is shown. Without one of the
    options it is the samples. The exit code is 0, also if they differ.
    """
    workspace = workspace_of(templates)
    with version(before, workspace.folder) as old, version(after, workspace.folder) as new:
        found = compared(
            *_previews(workspace, trigger, (old, new), events, (dead_letters, waiting))
        )
    differs = plural(found.different, "becomes", "become")
    return Result(
        {"before": before, "after": after, **asdict(found)},
        *_lines(found),
        notes=[f"{plural(found.events, 'event')} compared, {differs} something else."],
    )


def _previews(
    workspace: Workspace,
    trigger: str,
    versions: Sequence[tuple[Path, str]],
    events: Path | None,
    of_redis: tuple[bool, bool],
) -> Iterator[list[Previewed]]:
    """Yield what each version makes of the events that were chosen."""
    settings, now = workspace.settings, datetime.now(UTC)
    users = [one for _, template in versions for one in workspace.triggers(template)]
    chosen = workspace.trigger(trigger) if trigger else next(iter(users), None)
    if chosen is None or settings is None:
        if any(of_redis):
            raise UsageWrong("No trigger uses these templates; name one by --trigger.")
        samples: Sequence[Mapping[str, Any]] = load_profiles(events) if events else ()
        if events is None:
            cases = cases_of(workspace.folder, versions[0][1]) or workspace.cases(versions[0][1])
            samples = [case.profile for case in cases]
        rows = [sample_row(one, {}) for one in samples]
        yield from (preview_rendering(*one, rows) for one in versions)
        return
    candidates = []
    if events is not None:
        candidates += from_payload(events, read_json_values(events), chosen, settings)
    elif not any(of_redis):
        source, profile = f"The sample of {chosen.name}", profile_for(settings, chosen, now)
        candidates += from_payload(source, profile, chosen, settings)
    if any(of_redis):
        with opened() as (_, client):
            candidates += kept(client, settings, chosen, *of_redis)
    for folder, template in versions:
        yield preview(candidates, settings, trigger=chosen, template=template, folder=folder)


@dataclass(slots=True)
class FieldDifference:
    """The differences of one field over all events; values are never kept."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """The differences between what two versions make of the same events.

    Args:
        outcomes: `before → after`, where an event ends otherwise.
        sent: The differences in the bodies of requests, by field; empty without a trigger.
    """

    events: int = 0
    different: int = 0
    outcomes: dict[str, int] = field(default_factory=Counter)
    rendered: dict[str, FieldDifference] = field(default_factory=dict)
    sent: dict[str, FieldDifference] = field(default_factory=dict)


def compared(before: Sequence[Previewed], after: Sequence[Previewed]) -> Comparison:
    """Compare what two versions make of the same events."""
    rendered: defaultdict[str, FieldDifference] = defaultdict(FieldDifference)
    sent: defaultdict[str, FieldDifference] = defaultdict(FieldDifference)
    outcomes: Counter[str] = Counter()
    different = 0
    for old, new in zip(before, after, strict=True):
        ends = (_end(old), _end(new))
        if ends[0] != ends[1]:
            outcomes[f"{ends[0]} → {ends[1]}"] += 1
        differs = _add(old.body, new.body, rendered)
        differs |= _add(old.sent, new.sent, sent)
        different += differs or ends[0] != ends[1]
    by_field = (dict(sorted(fields.items())) for fields in (rendered, sent))
    return Comparison(len(before), different, dict(outcomes.most_common()), *by_field)


def _end(one: Previewed) -> str:
    if one.shaping is None:
        return one.rendering
    return "sent" if one.shaped else f"not sent ({one.reason})"


def _add(old: Any, new: Any, into: defaultdict[str, FieldDifference]) -> bool:
    """Add the differences between two bodies, and return whether both exist and differ."""
    if old is None or new is None:
        return False
    different = list(differences(old, new))
    for path, did, before, after in different:
        one = into[field_of(path)]
        match did:
            case "added":
                one.added += 1
            case "left out":
                one.removed += 1
            case "changed":
                one.changed += 1
                kind = " → ".join(_KINDS.get(type(value), "text") for value in (before, after))
                one.kinds[kind] = one.kinds.get(kind, 0) + 1
    return bool(different)


def _lines(found: Comparison) -> Iterator[str | Table]:
    for words, count in found.outcomes.items():
        yield f"{plural(count, 'event')}: {words}"
    for title, fields in (("rendered", found.rendered), ("sent", found.sent)):
        if fields:
            yield f"{title}:"
            yield Table(
                ("field", *count_columns("added", "removed", "changed"), *text_columns("how")),
                [
                    (name, one.added, one.removed, one.changed, ", ".join(often))
                    for name, one in fields.items()
                    for often in [nlargest(3, one.kinds, key=one.kinds.__getitem__)]
                ],
            )


@contextmanager
def version(text: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Open the named version, `TEMPLATE` or `REVISION:TEMPLATE`; yield its folder and its name."""
    revision, _, name = text.rpartition(":")
    with tempfile.TemporaryDirectory() as copy:
        there = Path(copy) if revision else folder
        if revision:
            _check_out(revision, folder, there)
        name = full_name(name, there)
        if not (there / name).is_file():
            raise UsageWrong(
                f"{text}: that revision has no {name}."
                if revision
                else f"{text}: there is no such template in {folder}; name one below that folder,"
                " or REVISION:TEMPLATE for one of git's revisions."
            )
        yield there, name


def _check_out(revision: str, folder: Path, into: Path) -> None:
    """Write the templates folder of a revision; the working tree is not changed."""
    if revision.startswith("-"):
        raise UsageWrong(f"{revision}: that is no revision.")
    command = ["git", "-C", str(folder), "archive", "--format=tar", revision]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UsageWrong("git is not installed here, and a revision was named.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageWrong(f"{revision}: git knows no such revision ({' '.join(said[:1])}).")
    try:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(into, filter="data")
    except tarfile.ReadError as error:  # git's archive of an empty folder is empty
        raise UsageWrong(
            f"{revision}: that revision of git has nothing in {folder}; commit the templates"
            " first, or name two files."
        ) from error
