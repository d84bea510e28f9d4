"""Changes one place of a Lua script after the other, and tells which changes no test notices.

`python -m tests.lua_mutants 200` tries 200 places, drawn at random, of a copy of this folder.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

RULES = (
    (r"==", "~="),
    (r"~=", "=="),
    (r"<=", "<"),
    (r">=", ">"),
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"\bnot ", ""),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"(?<![\w.'])\d+\b(?!')", lambda found: str(int(found[0]) + 1)),
    (r"^( *)redis\.call\(.*\)$", r"\1local _ = nil"),
)
TESTS = {
    "worker": ("tests/conformance", "tests/unit/worker", "tests/integration/worker"),
    "producer": ("tests/conformance/partition", "tests/integration/producer"),
    "ops": ("tests/integration/ops",),
}
"""The tests that run the scripts of a folder."""


def mutants(script: str) -> Iterator[tuple[int, str]]:
    """Yield a line's number and the whole script with this line changed at one place."""
    lines = script.splitlines(keepends=True)
    for number, line in enumerate(lines):
        code = line.partition("--")[0]
        for rule, instead in RULES:
            for found in re.finditer(rule, code):
                changed = (
                    code[: found.start()]
                    + found.expand(instead if isinstance(instead, str) else instead(found))
                    + code[found.end() :]
                )
                yield number + 1, "".join([*lines[:number], changed, "\n", *lines[number + 1 :]])


def is_noticed(folder: Path, tests: Sequence[str]) -> bool:
    """Say whether a test fails, or does not end within 20 minutes."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, timeout=1_200, check=False)
    except subprocess.TimeoutExpired:
        return True
    return ended.returncode != 0


def main(number: int, seed: int = 0) -> None:
    """Try that many mutants, and name those that no test notices."""
    scripts = [path for room in TESTS for path in Path(room).rglob("*.lua")]
    every = [(path, *each) for path in scripts for each in mutants(path.read_text())]
    left_out = shutil.ignore_patterns(".venv*", ".git", ".*_cache", "mutants")
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(".", Path(folder) / "copy", symlinks=True, ignore=left_out)
        if is_noticed(copy, sorted({path for paths in TESTS.values() for path in paths})):
            sys.exit("a test fails where nothing is changed")
        for path, line, text in random.Random(seed).sample(every, number):
            (copy / path).write_text(text)
            if not is_noticed(copy, TESTS[path.parts[0]]):
                survivors += 1
                sys.stdout.write(f"{path}:{line}: {text.splitlines()[line - 1].strip()}\n")
                sys.stdout.flush()
            shutil.copy(path, copy / path)
    sys.stdout.write(f"{number - survivors} of {number} mutants of {len(every)} are noticed\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
