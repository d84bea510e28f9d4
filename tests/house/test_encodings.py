"""A rule about bytes and text: nothing is read or written in the encoding of the locale."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_rules import ROOT, sources

_OPENING = {"open", "fdopen", "read_text", "write_text", "TextIOWrapper", "getoutput"}
_NO_TEXT = {"os", "gzip"}
"""Modules whose `open` opens no text, unless a mode says so."""
_ENCODING = re.compile(r"'utf-8'|encoding=|read_text\('direct_url")
_MODE = re.compile(r"'[rwxa]([bt+]*)'")


def in_the_locale(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls that open a file or a pipe in the encoding of the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not _ENCODING.search(told := ast.unparse(node)):
            module, _, name = ast.unparse(node.func).rpartition(".")
            mode = _MODE.search(told)
            is_binary = "b" in mode[1] if mode else module in _NO_TEXT
            is_text = bool({"text", "universal_newlines"} & {each.arg for each in node.keywords})
            if is_text or (name in _OPENING and not is_binary):
                yield node.lineno


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
        ("p.write_text(t, 'utf-8')", False),
        ("os.fdopen(f, 'w')", True),
        ("subprocess.run(c, text=True)", True),
    ],
)
def test_the_rule_sees_each_way_to_open_text(code: str, is_bad: bool) -> None:
    assert bool(list(in_the_locale(ast.parse(code)))) == is_bad
