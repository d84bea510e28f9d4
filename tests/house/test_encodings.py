"""A rule about bytes and text: nothing is read or written in the encoding of the locale."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.house.test_rules import ROOT, sources

_BINARY = {"bz2", "gzip", "lzma", "tarfile", "zipfile", "zstd"}
"""Names whose `open` does not open text, unless it is told to."""
_TEXT_PIPES = {"text", "universal_newlines"}
_READS = {"read_text": 0, "write_text": 1}
"""The position of the encoding among the arguments."""


def in_the_locale(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls that open a file or a pipe in the encoding of the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_in_the_locale(node):
            yield node.lineno


def _is_in_the_locale(call: ast.Call) -> bool:
    named = {each.arg: each.value for each in call.keywords}
    if "encoding" in named or None in named or _is_codec(call.func):
        return False
    if any(_is_true(named[each]) for each in _TEXT_PIPES & named.keys()) or "errors" in named:
        return True
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text" as name):
            return len(call.args) <= _READS[name]
        case ast.Attribute(ast.Name("os"), "open"):
            return False
        case ast.Attribute(attr="open" | "fdopen") | ast.Name("open"):
            return _opens_text(call, named)
        case ast.Attribute(attr="TextIOWrapper" | "getoutput" | "getstatusoutput"):
            return len(call.args) < 2
        case _:
            return False


def _is_codec(function: ast.expr) -> bool:
    """Say whether a call means UTF-8 if it names no encoding, or keeps the one of its stream."""
    kept = {"decode", "encode", "reconfigure"}
    return isinstance(function, ast.Attribute) and function.attr in kept


def _opens_text(call: ast.Call, named: dict[str | None, ast.expr]) -> bool:
    of_module = isinstance(call.func, ast.Attribute) and _root(call.func.value) in _BINARY
    modes = [named.get("mode"), *call.args]
    mode = next((each.value for each in modes if _is_mode(each)), "rb" if of_module else "r")
    return "b" not in mode and (not of_module or "t" in mode)


def _root(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_mode(node: ast.expr | None) -> TypeGuard[ast.Constant]:
    """Say whether an argument is a mode; the paths that we write into code are longer."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return 0 < len(node.value) <= len("rb+") and set(node.value) <= set("rwxabt+")


def _is_true(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Constant) and node.value is False)


def test_nothing_is_opened_in_the_encoding_of_the_locale() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        for line in in_the_locale(ast.parse(path.read_text("utf-8")))
    ]

    assert found == []


def test_a_process_of_the_engine_has_no_streams_of_text() -> None:
    processes = [path for path in (ROOT / "jsonnet").rglob("*.py") if _is_run(path)]

    assert {path.name for path in processes} == {"isolated.py", "judging.py"}
    for path in processes:
        text = path.read_text("utf-8")
        assert text.count("sys.std") == text.count(".buffer"), path


def _is_run(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("code", "is_bad"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, 'rb')", False),
        ("open(p, encoding='utf-8')", False),
        ("p.open()", True),
        ("p.open('a')", True),
        ("p.open('ab')", False),
        ("self.path.open()", True),
        ("gzip.open(p)", False),
        ("gzip.open(p, 'rt')", True),
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(t)", True),
        ("p.write_text(t, 'utf-8')", False),
        ("os.fdopen(f, 'w')", True),
        ("os.fdopen(f, 'wb')", False),
        ("os.open(p, flags)", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.Popen(c, universal_newlines=True)", True),
        ("subprocess.run(c, errors='replace')", True),
        ("subprocess.run(c, encoding='utf-8', errors='replace')", False),
        ("subprocess.run(c, capture_output=True)", False),
        ("io.TextIOWrapper(f)", True),
    ],
)
def test_the_rule_sees_each_way_to_open_text(code: str, is_bad: bool) -> None:
    assert bool(list(in_the_locale(ast.parse(code)))) == is_bad
