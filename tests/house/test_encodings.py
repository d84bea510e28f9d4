"""A rule about bytes and text: nothing is read or written in the encoding of the locale."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_rules import ROOT, sources

_BINARY = {"bz2", "gzip", "lzma", "tarfile", "zipfile", "zstd"}
"""Names whose `open` does not open text, unless it is told to."""
_KEEP = {"decode", "encode", "reconfigure"}
"""Functions that mean UTF-8 if they name no encoding, or keep the one of their stream."""
_TEXT = {"text", "universal_newlines", "errors"}
"""Arguments by which a pipe or a file becomes one of text."""
_MODE = re.compile(r"'([rwxabt+]{1,3})'")


def in_the_locale(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls that open a file or a pipe in the encoding of the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_in_the_locale(node):
            yield node.lineno


def _is_in_the_locale(call: ast.Call) -> bool:
    named = {each.arg for each in call.keywords}
    module, _, name = ast.unparse(call.func).rpartition(".")
    if named & {"encoding", None} or name in _KEEP:
        return False
    if named & _TEXT:
        return True
    match name:
        case "read_text":
            return not call.args
        case "write_text" | "TextIOWrapper" | "getoutput" | "getstatusoutput":
            return len(call.args) < 2
        case "open" | "fdopen" if module != "os" or name == "fdopen":
            values = [*(each.value for each in call.keywords if each.arg == "mode"), *call.args]
            modes = [found[1] for each in values if (found := _MODE.fullmatch(ast.unparse(each)))]
            default = "rb" if module in _BINARY else "rt"
            return "b" not in (modes or [default])[0] and (module not in _BINARY or "t" in modes[0])
        case _:
            return False


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
        ("open(p, 'rb')", False),
        ("open(p, encoding='utf-8')", False),
        ("p.open()", True),
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
        ("subprocess.run(c, errors='replace')", True),
        ("subprocess.run(c, encoding='utf-8', errors='replace')", False),
        ("subprocess.run(c, capture_output=True)", False),
        ("io.TextIOWrapper(f)", True),
    ],
)
def test_the_rule_sees_each_way_to_open_text(code: str, is_bad: bool) -> None:
    assert bool(list(in_the_locale(ast.parse(code)))) == is_bad
