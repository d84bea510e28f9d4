r"""Finds unknown fields of profiles in templates, wrong calls of the shipped libraries, and damage.

Markdown, or a shell's `echo`, damages templates that are copied: a backslash before a sign that
Jsonnet does not escape (`\[`, `\_uid`), the words `echo '` around the whole, and one bracket too
many. The first two are certain. The last is taken out only where the file parses without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

from segrelay.javascript.engine import why_unparsed
from segrelay.javascript.source import calls_by_locale, fields_read
from segrelay.jsonnet.files import Bundle, SourceFile, shown
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.parser import parse
from segrelay.jsonnet.syntax.tokens import SyntaxWrong, location
from segrelay.jsonnet.syntax.tree import children, room
from segrelay.ops.templates.library import LIBRARIES, members
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import Finding

_ASKING: Final = frozenset({"get", "has"})
_ALWAYS: Final = frozenset({"segment_events", "payload_id", "_id", "_uid", "_segments"})
"""Fields that every payload of Lytics may have, even if no sample has them."""
_NEAR: Final = 0.75
_OURS: Final = "lib/"
_ELSEWHERE: Final = "look whether Lytics sends it under another name."


_Libraries = Mapping[str, str]
"""The names of libraries by the variables that hold them."""


def nodes_of(file: SourceFile) -> list[tuple[tree.Node, _Libraries]]:
    """Return each expression of a file, with the libraries that variables hold there.

    There is none if the file does not parse.
    """
    try:
        root = parse(file.text)
    except SyntaxWrong:
        return []
    with room():
        return list(_walked(root, {}, file))


def _walked(
    node: tree.Node, known: _Libraries, file: SourceFile
) -> Iterator[tuple[tree.Node, _Libraries]]:
    yield node, known
    binds = node.binds if isinstance(node, tree.Local | tree.Object) else ()
    own = {bind.name: _library(bind.value, known, file) for bind in binds}
    for child, bound, _ in children(node):
        inner = {name: library for name, library in known.items() if name not in bound}
        inner |= {name: library for name, library in own.items() if library and name in bound}
        yield from _walked(child, inner, file)


def _library(node: tree.Node, known: _Libraries, file: SourceFile) -> str:
    """Return the name of the shipped library that an expression stands for; "" = none."""
    match node:
        case tree.Name(name=name):
            return known.get(name, "")
        case tree.Import(word="import"):
            target = next((to for each, to in file.imports if each.at == node.at), "")
            name = shown(target).removeprefix(_OURS)
            return name if shown(target).startswith(_OURS) and name in _members() else ""
    return ""


def _own_files(bundle: Bundle) -> list[SourceFile]:
    """Return the template and the files that it imports, without those of the shipped library."""
    files = [file for file in bundle.files.values() if file.is_code]
    return [file for file in files if not shown(file.name).startswith(_OURS)]


def asked_for(bundle: Bundle) -> Iterator[tuple[str, str, int, int]]:
    """Yield the name, file, line and column of each field of a profile that is read."""
    if bundle.language:
        file = bundle.files[bundle.root]
        for name, at in fields_read(file.text):
            yield name, shown(file.name), *location(file.text, at)
    for file in _own_files(bundle):
        for node, known in nodes_of(file):
            match node:
                case tree.Call(
                    target=tree.Index(target=source, key=tree.Constant(value=str(function))),
                    arguments=(tree.Constant(value=str(name)) as field, *rest),
                ) if function in _ASKING and not (function == "has" and rest):
                    if _library(source, known, file) == LYTEMPLATES.event_file:
                        yield name, shown(file.name), *location(file.text, field.at)


def unknown_fields(
    bundle: Bundle, profiles: Iterable[Mapping[str, Any]], seen: Collection[str]
) -> Iterator[Finding]:
    """Yield a finding for each field that no sample and no recent profile has.

    Args:
        bundle: The template.
        profiles: The profiles of the samples.
        seen: Names of the fields of profiles that were seen; none = nothing is known of them. Then
            only a field that looks like another one mistyped is named: samples are small.
    """
    known = _ALWAYS.union(seen, *profiles)
    told: set[str] = set()
    for name, file, line, column in asked_for(bundle):
        if name in known or name in told:
            continue
        told.add(name)
        near = next(iter(get_close_matches(name, known, 1, _NEAR)), "")
        hint = f"did you mean {near}?" if near else _ELSEWHERE
        if seen or near:
            said = f"no sample and no profile that was seen lately has the field {name}; {hint}"
            yield Finding("warning", said, "", file, line, column)


_INSIDER: Final = "insider.libsonnet"
_VALUES: Final = "values.libsonnet"
_NO_FIELD: Final = frozenset({"eventName", "omitEmpty"})
"""Functions of insider.libsonnet that take a value; the others take the name of a field."""


@cache
def _members() -> dict[str, tuple[str, ...]]:
    return {one.imports: tuple(each.name for each in members(one)) for one in LIBRARIES}


def wrong_calls(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for each unknown member or wrong argument of a shipped library.

    In JavaScript, for each call that does not know the locale that it is given.
    """
    file = bundle.files[bundle.root]
    for name, at in calls_by_locale(file.text) if bundle.language else ():
        message = f"{name} knows no locale here: it gives what it gives without one."
        yield Finding("warning", message, "", shown(file.name), *location(file.text, at))
    for file in _own_files(bundle):
        for node, known in nodes_of(file):
            yield from _member(node, known, file)
            yield from _value_for_a_name(node, known, file)


def _member(node: tree.Node, known: _Libraries, file: SourceFile) -> Iterator[Finding]:
    if not (isinstance(node, tree.Index) and isinstance(node.key, tree.Constant)):
        return
    library, name = _library(node.target, known, file), str(node.key.value)
    if not library or name in _members()[library]:
        return
    near = next(iter(get_close_matches(name, _members()[library], 1)), "")
    hint = f"did you mean {near}?" if near else f"it has {', '.join(_members()[library])}."
    yield _call_finding(f"{library} has no {name}; {hint}", node.key.at, file)


def _value_for_a_name(node: tree.Node, known: _Libraries, file: SourceFile) -> Iterator[Finding]:
    match node:
        case tree.Call(
            target=tree.Index(target=target, key=tree.Constant(value=str(name))),
            arguments=(tree.Call(arguments=(tree.Constant(value=str(field)), *_)) as given, *_),
        ) if (
            _library(target, known, file) == _INSIDER
            and name in _members()[_VALUES]
            and name not in _NO_FIELD
            and _gets_a_field(given, known, file)
        ):
            said = (
                f"{name} of {_INSIDER} takes the name of a field, not its value; write"
                f' {name}("{field}"), or take {name} of {_VALUES}.'
            )
            yield _call_finding(said, _start(given), file)


def _gets_a_field(node: tree.Call, known: _Libraries, file: SourceFile) -> bool:
    match node.target:
        case tree.Index(target=source, key=tree.Constant(value="get")):
            return bool(_library(source, known, file))
    return False


def _start(node: tree.Node) -> int:
    while isinstance(node, tree.Call | tree.Index):
        node = node.target
    return node.at


def _call_finding(message: str, at: int, file: SourceFile) -> Finding:
    line, column = location(file.text, at)
    return Finding("error", message, "", shown(file.name), line, column)


_ECHO: Final = re.compile(r"\A\s*(?:\$ )?echo\s+'(?P<inner>.*)'\s*(?:[>|].*)?\Z", re.DOTALL)
_SHELL_QUOTE: Final = "'\\''"
_ESCAPED: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\([\[\]{}()_*#<>+.!|`~=&-])")
_CLOSING: Final = ("]", "}", ")")
_ENTITIES: Final = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">", "&#39;": "'"}
_CURLED: Final = dict.fromkeys("\u201c\u201d", '"') | dict.fromkeys("\u2018\u2019", "'")
_MOST_BRACKETS: Final = 4
"""Largest number of brackets that are removed; copying does not damage more."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction of a template."""

    line: int
    column: int
    what: str
    instead: str

    @property
    def in_words(self) -> str:
        """Return the correction in words."""
        return f"{self.what} → {self.instead}" if self.instead else f"{self.what} is taken out"


@dataclass(frozen=True, slots=True)
class Corrected:
    """A template's text without the damage.

    Args:
        problem: The reason why it still does not parse; "" = it does.
    """

    text: str
    corrections: tuple[Correction, ...]
    problem: str = ""
    line: int = 0
    column: int = 0


_Parse = Callable[[str], SyntaxWrong | None]
"""A function that returns why a text does not parse; None if it does."""


def corrected(text: str, template: str) -> Corrected:
    """Return a template's text without the damage, and the corrections.

    Args:
        text: The text of the template.
        template: Its name; the ending tells the language.
    """
    if LYTEMPLATES.language_of(template):
        return _corrected_script(text)
    inner, corrections = _without_echo(text)
    found, more = _without_escapes(inner, _wrong)
    wrong = _wrong(found)
    if wrong is not None:
        balanced = _balanced(found)
        if balanced is not None:
            return Corrected(balanced[0], (*corrections, *more, *balanced[1]))
        line, column = location(found, wrong.at)
        return Corrected(found, (*corrections, *more), wrong.message, line, column)
    return Corrected(found, (*corrections, *more))


def _corrected_script(text: str) -> Corrected:
    """Return the text of a script without the damage.

    Its regular expressions may have the same backslashes as damage: these are taken out only where
    it does not parse with them, and does without.
    """
    inner, corrections = _without_echo(text)
    wrong = _wrong_script(inner)
    if wrong is None:
        return Corrected(inner, tuple(corrections))
    found, more = _without_escapes(inner, _wrong_script)
    if _wrong_script(found) is None:
        return Corrected(found, (*corrections, *more))
    return Corrected(inner, tuple(corrections), wrong.message, *location(inner, wrong.at))


def copy_of(path: Path) -> Path:
    """Return the path of the corrected copy of a template, beside it."""
    return path.with_name(f"{path.stem}.fixed{path.suffix}")


def _without_echo(text: str) -> tuple[str, list[Correction]]:
    match = _ECHO.match(text)
    if match is None:
        return text, []
    line, column = location(text, text.index("echo"))
    inner = match["inner"].replace(_SHELL_QUOTE, "'")
    return inner + "\n", [Correction(line, column, "echo '…'", "")]


def _without_escapes(text: str, wrong_of: _Parse) -> tuple[str, list[Correction]]:
    corrections = []
    for match in _ESCAPED.finditer(text):
        line, column = location(text, match.start(2) - 1)
        corrections.append(Correction(line, column, f"\\{match[2]}", match[2]))
    found = _ESCAPED.sub(r"\1\2", text)
    if wrong_of(found) is None:
        return found, corrections
    for wrong, right in (_ENTITIES | _CURLED).items():
        if wrong in found:
            line, column = location(found, found.index(wrong))
            corrections.append(Correction(line, column, wrong, right))
            found = found.replace(wrong, right)
    return found, corrections


def _wrong(text: str) -> SyntaxWrong | None:
    try:
        parse(text)
    except SyntaxWrong as wrong:
        return wrong
    return None


def _wrong_script(text: str) -> SyntaxWrong | None:
    """Return why a text is no JavaScript; None if it is, or where nobody can tell."""
    try:
        wrong = why_unparsed(text)
    except TemplateBroken:
        return None
    if wrong is None:
        return None
    lines = text.splitlines(keepends=True)
    at = sum(map(len, lines[: wrong.line - 1])) + max(0, wrong.column - 1)
    return SyntaxWrong(wrong.message, min(at, len(text)))


def _balanced(text: str) -> tuple[str, list[Correction]] | None:
    """Remove brackets at which parsing fails; None if that does not help."""
    corrections: list[Correction] = []
    while (wrong := _wrong(text)) is not None:
        at = wrong.at
        if text[at : at + 1] not in _CLOSING or len(corrections) == _MOST_BRACKETS:
            return None
        corrections.append(Correction(*location(text, at), text[at], ""))
        text = text[:at] + text[at + 1 :]
    return text, corrections
