"""`segrelay template render` and `watch`: render events with a template."""

from __future__ import annotations

import json as json_text
import shutil
import sys
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ops.templates.trying.events import rehearse_named
from ops.templates.trying.explained import changes_of_rehearsed, document_of
from ops.templates.workspace import (
    Folder,
    Given,
    TemplateArgument,
    TriggerName,
    Workspace,
    full_name,
    workspace_of,
)
from ops.terminal.console import mention, print_json, say
from ops.terminal.options import Json, object_of
from worker.checks.rehearsal import Rehearsed
from worker.errors import SegrelayError, TemplateBroken
from worker.jsonnet.rendered import Killed

_LOOK_SECONDS: Final = 0.2
_CLEAR: Final = "\x1b[2J\x1b[H"
_GAP: Final = 3
_NARROWEST: Final = 60
_What = Annotated[
    str,
    typer.Argument(
        help="A payload or an array of them, a dead letter's id, or whose event waits.",
        metavar="FILE",
    ),
]


def render(
    template: TemplateArgument,
    file: _What,
    *,
    trigger: TriggerName = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what is sent beside it, and why they differ.")
    ] = False,
    templates: Folder = None,
    settings: Given = "",
    json: Json = False,
) -> None:
    """Print what a template makes of each segment event of a payload.

    FILE may also be the id of a dead letter, or the identity of a person of whom something waits,
    such as ann@example.com. The exit code is 2 if the template fails for one.
    """
    workspace = workspace_of(templates)
    name = full_name(template)
    outcomes = rehearse_named(
        workspace, name, file, trigger, object_of(settings, "--settings") if settings else None
    )
    _raise_if_killed(outcomes, name)
    if json:
        print_json([document_of(one) for one in outcomes])
    else:
        _tell(outcomes, explain=explain)
    if any(one.rendering == "failed" for one in outcomes):
        raise typer.Exit(TemplateBroken.exit_code)


def _raise_if_killed(outcomes: Sequence[Rehearsed], template: str) -> None:
    for number, one in enumerate(outcomes, 1):
        if isinstance(one.result, Killed):
            raise TemplateBroken(
                f"{template}: rendering event {number} of {len(outcomes)} ends or hangs the"
                " process.",
                template,
            )


def _tell(outcomes: Sequence[Rehearsed], *, explain: bool) -> None:
    for one in outcomes:
        if one.rendering == "rendered" and explain and one.shaping:
            _explain(one)
        elif one.rendering == "rendered":
            say(_pretty(one.body))
        else:
            mention(in_words(one))


def in_words(one: Rehearsed) -> str:
    """Return a line that says why an event has no body: it was skipped, or failed."""
    if one.rendering == "skipped":
        return f"skipped: {one.message}"
    return f"failed: {one.placed_message}"


def _explain(one: Rehearsed) -> None:
    say(f"{one.name}:")
    if one.sent is None:
        say(_pretty(one.body))
        say(f"nothing is sent ({one.reason}): {one.message}")
        return
    for part, value in one.target.items():
        say(f"{part}: {value if isinstance(value, str) else _pretty(value)}")
    width = max(_NARROWEST, shutil.get_terminal_size((120, 40)).columns)
    for line in side_by_side(_pretty(one.body), _pretty(one.sent), width):
        say(line)
    for change in changes_of_rehearsed(one):
        say(f"  {change.path} is {change.did}: {change.why}")


def side_by_side(left: str, right: str, width: int) -> list[str]:
    """Return the rendered and the sent text in two columns, with equal lines side by side."""
    half = (width - _GAP) // 2
    lines = [f"{'rendered'.ljust(half)}   sent", f"{'-' * half}   {'-' * half}"]
    one, other = left.splitlines(), right.splitlines()
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        mark = " " if kind == "equal" else "|"
        for mine, theirs in zip_longest(one[a:b], other[c:d], fillvalue=""):
            lines.append(f"{_cut(mine, half)} {mark} {_cut(theirs, half)}".rstrip())
    return lines


def _cut(line: str, width: int) -> str:
    return line.ljust(width) if len(line) <= width else f"{line[: width - 1]}…"


def _pretty(value: Any) -> str:
    return json_text.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def watch(
    template: TemplateArgument,
    file: _What,
    *,
    trigger: TriggerName = "",
    templates: Folder = None,
    settings: Given = "",
) -> None:
    """Render again at every save of a template or of FILE, until Ctrl-C."""
    workspace = workspace_of(templates)
    given = object_of(settings, "--settings") if settings else None
    seen: object = None
    try:
        while True:
            now = _stamps(workspace, file)
            if now != seen:
                seen = now
                _show(workspace, full_name(template), file, trigger, given)
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        mention("")


def _stamps(workspace: Workspace, file: str) -> list[tuple[str, int, int]]:
    """Return path, time and size of each file, which change with a save."""
    found = []
    for path in (*sorted(workspace.folder.rglob("*sonnet")), Path(file)):
        try:
            state = path.stat()
        except OSError:
            continue
        found.append((str(path), state.st_mtime_ns, state.st_size))
    return found


def _show(workspace: Workspace, template: str, file: str, trigger: str, given: Any) -> None:
    """Render once and print the result; a problem is printed instead of the body."""
    if sys.stdout.isatty():
        sys.stdout.write(_CLEAR)
    try:
        for one in rehearse_named(workspace, template, file, trigger, given):
            _tell([one], explain=True) if one.rendering == "rendered" else say(in_words(one))
    except SegrelayError as error:
        say(error.message)
    say(f"-- {template}, {time.strftime('%H:%M:%S')}; Ctrl-C ends this")
    sys.stdout.flush()
