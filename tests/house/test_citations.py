"""What docstrings, comments and documents cite is there: modules, files, errors, steps."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
import redis
from pydantic import BaseModel

from segrelay.worker import errors
from segrelay.worker.contract.settings import Settings
from tests.house.test_documents import DOCUMENTS, ROOMS
from tests.house.test_rules import ROOT, sources, tracked

NOT_OURS = {"celeryconfig.py", "flowerconfig.py"}
"""Files that Celery and Flower look for."""
NOT_MODULES = {"events.0.event_name", "insider.phone", "worker.broken"}
"""A place in a body, a function of the template library, and a line of the log."""
OTHER_SUFFIXES = (".py", ".lua", ".js", ".json", ".jsonnet", ".libsonnet", ".toml", ".yaml")
EXPLAINED = "NAME"
"""Stands in the name of a file that the reader is told to write."""

_FILE = re.compile(r"(?<![\w./*-])[\w./*-]*\w\.(?:py|lua)\b")
_DOTTED = re.compile(r"`(?:segrelay\.)?([a-z_]+(?:\.\w+)+)[`(]")
_TREE = re.compile(r"^([│ ├└─]*)([A-Z]\w+)", re.MULTILINE)

LUA = tracked(".lua")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sources()
}
FOLDERS = {name.rsplit(".", n)[0] for name in MODULES for n in range(1, name.count(".") + 1)}
FIRST_NAMES = {part for name in MODULES | dict.fromkeys(FOLDERS) for part in name.split(".")}


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("contract.keys.digest_of", True),
        ("worker.drain.Drain.run", True),
        ("redis.ConnectionError", True),
        ("contract.keys.take_over", False),
        ("redis.takeover", False),
    ],
)
def test_names_are_found_in_every_form(name: str, is_known: bool) -> None:
    assert is_there(name) is is_known


def test_every_module_that_a_docstring_or_comment_cites_is_there() -> None:
    cited = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*sources(), *LUA, *DOCUMENTS]
        for name in _DOTTED.findall(path.read_text())
        if is_meant(name, path) and not is_there(name)
    }

    assert cited == set()


def is_meant(name: str, path: Path) -> bool:
    """Say whether a dotted name is one of ours: documents also name fields, logs and functions."""
    first = name.partition(".")[0]
    if name in NOT_MODULES or name.endswith(OTHER_SUFFIXES):
        return False
    return first in (ROOMS if path.suffix == ".md" else FIRST_NAMES)


def is_there(name: str) -> bool:
    """Say whether a name is that of a folder, a module, something in it, or a configured key."""
    first, *rest = name.split(".")
    if first == "redis" and hasattr(redis, rest[0]):
        return True
    return is_key(Settings, name.split(".")) or any(
        is_in(name.split(".")[:count], name.split(".")[count:]) for count in range(1, len(rest) + 2)
    )


def is_in(module: list[str], rest: list[str]) -> bool:
    end = "." + ".".join(module)
    if not rest:
        return any(f".{name}".endswith(end) for name in [*MODULES, *FOLDERS])
    return any(
        all(re.search(rf"\b{word}\b", path.read_text()) for word in rest)
        for name, path in MODULES.items()
        if f".{name}".endswith(end)
    )


def is_key(table: type, names: list[str]) -> bool:
    """Say whether a key of the configuration has this name."""
    keys = table.model_fields.items() if issubclass(table, BaseModel) else ()
    types = [field.annotation for name, field in keys if names[0] in (name, field.alias)]
    if not types:
        return False
    types += [one for kind in types for one in get_args(kind)]
    found = [one for one in types if isinstance(one, type)]
    return not names[1:] or any(is_key(one, names[1:]) for one in found)


def test_every_file_of_ours_that_is_cited_is_there() -> None:
    names = [f"/{path.relative_to(ROOT)}" for path in tracked(".py", ".lua")]
    cited = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*sources(), *LUA, *DOCUMENTS]
        for name in _FILE.findall(path.read_text())
        if EXPLAINED not in name and "*" not in name and name not in NOT_OURS
        if not any(one.endswith("/" + name.removeprefix("segrelay/")) for one in names)
    }

    assert cited == set()


def test_the_tree_of_errors_has_every_class_below_its_parent() -> None:
    classes = {
        node.name: ast.unparse(node.bases[0])
        for node in ast.parse(Path(errors.__file__).read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    drawn, above = {}, ["Exception"]
    for indent, name in _TREE.findall(str(errors.__doc__).split("\n\n")[1]):
        depth = len(indent) // 4
        drawn[name] = above[depth]
        above[depth + 1 :] = [name]

    assert drawn == classes
