"""Findings as lines: `file:line:column: severity: what; hint`, and the source line below."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ops.templates.checking.fields import tree_of, walked
from worker.checks.finding import Finding
from worker.jsonnet.files import Bundle, shown
from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.room import room
from worker.jsonnet.syntax.tokens import place

_RED: Final = "\x1b[31m"
_YELLOW: Final = "\x1b[33m"
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_SPEAKING: Final = frozenset(
    {"not_append", "append", "error_callback_endpoint", "whole", "partial", "events", "attributes"}
)
"""Fields of a body that findings name, and that have the same name in the template."""


def placed(
    finding: Finding, template: str, bundle: Bundle | None, names: Sequence[str] = ()
) -> Finding:
    """Return a finding with its place; the message does not repeat the place.

    Args:
        finding: About a field of the body, or about none.
        template: The template's name.
        bundle: None where it does not load.
        names: The fields that it is about; none = they are searched in its message.
    """
    file = finding.file or template
    message = finding.message
    for prefix in (f"{file}:{finding.line}:{finding.column}: ", f"{file}: "):
        message = message.removeprefix(prefix)
    found = replace(finding, file=file, message=message)
    return found if finding.line or bundle is None else _looked_up(found, bundle, names)


def once(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings without duplicates, which have the same place and message."""
    seen = {(one.file, one.line, one.column, one.message): one for one in findings}
    return list(seen.values())


def _looked_up(finding: Finding, bundle: Bundle, names: Sequence[str]) -> Finding:
    """Add the place where the template writes the field that a finding is about."""
    words = _WORD.findall(finding.message)
    told = (word for word in words if word in _SPEAKING)
    wanted = list(names or told) or [word for word in words if "_" in word]
    for file in bundle.files.values():
        if shown(file.name) != finding.file or not wanted:
            continue
        root = tree_of(file)
        if root is None:
            continue
        with room():
            at = dict(_fields(root))
        for word in wanted:
            if word in at:
                line, column = place(file.text, at[word])
                return replace(finding, line=line, column=column)
    return finding


def _fields(root: tree.Node) -> Iterator[tuple[str, int]]:
    for node in walked(root):
        for field in node.fields if isinstance(node, tree.Object) else ():
            if isinstance(field.name, tree.Constant):
                yield str(field.name.value), field.at


def where(finding: Finding) -> str:
    """Return the place of a finding as compilers write it."""
    if not finding.line:
        return finding.file
    return f"{finding.file}:{finding.line}:{finding.column}"


def lines_of(finding: Finding, source: Callable[[str], str], *, colour: bool) -> Iterator[str]:
    """Yield a finding's lines; on a terminal with the line of the source and a mark below.

    `source` returns the text of a file, or "" where it can't be read.
    """
    if not colour:
        yield f"{where(finding)}: {finding.severity}: {finding.message}"
        return
    shade = _RED if finding.severity == "error" else _YELLOW
    yield f"{_BOLD}{where(finding)}:{_PLAIN} {shade}{finding.severity}:{_PLAIN} {finding.message}"
    lines = source(finding.file).splitlines() if finding.line else []
    if 0 < finding.line <= len(lines):
        yield f"  {lines[finding.line - 1]}"
        yield f"  {' ' * (finding.column - 1)}{shade}^{_PLAIN}"


def source_below(folder: Path) -> Callable[[str], str]:
    """Return a function that reads the files of a templates folder."""

    def read(name: str) -> str:
        try:
            return (folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    return read
