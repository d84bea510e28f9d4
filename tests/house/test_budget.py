"""Each room of the house has a number of code lines, which may only fall."""

import ast
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUDGET = Path(__file__).with_name("budget.toml")
PRODUCT = ("producer", "worker", "ops")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(text: str) -> int:
    """Count lines without blank ones, comments, docstrings and imports."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            left_out |= lines_of(node.body[0])
        elif isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= lines_of(node)
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in left_out and is_code(line, "#"))


def lines_of(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def is_code(line: str, comment: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(comment)


def counts(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each room that a file belongs to, with what it adds there."""
    parts = path.relative_to(ROOT).parts
    if path.suffix == ".lua":
        yield "lua", sum(is_code(line, "--") for line in path.read_text().splitlines())
        yield "lua files", 1
    if path.suffix != ".py":
        return
    text = path.read_text()
    lines = code_lines(text)
    if parts[0] in PRODUCT:
        yield "product", lines
        yield "modules", path.name != "__init__.py"
        yield "records", sum("@dataclass" in line for line in text.splitlines())
        yield "/".join(parts[:2]) if len(parts) > 2 else f"{parts[0]}/", lines
    else:  # the peers are a folder with requirements of its own
        yield "/".join(parts[:3]) if parts[1:3] == ("bench", "peers") else parts[0], lines


def rooms() -> Mapping[str, int]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.lua"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = {ROOT / line for line in listed.stdout.splitlines()}
    total: Counter[str] = Counter()
    for path in paths:
        if path.is_file():
            total.update(dict(counts(path)))
    return total


def grown(now: Mapping[str, int], budget: Mapping[str, int]) -> list[str]:
    return [
        f"{room} has {lines}, {lines - budget.get(room, 0)} more than its budget"
        for room, lines in sorted(now.items())
        if lines > budget.get(room, 0)
    ]


def test_no_room_is_larger_than_its_budget() -> None:
    """Lower the budget where a room has become smaller; take from it if another must grow."""
    assert grown(rooms(), tomllib.loads(BUDGET.read_text())) == []


def test_a_room_that_grows_is_named_with_its_lines() -> None:
    now = {"worker/batch": 3_010, "lua": 5, "new room": 1}

    told = grown(now, {"worker/batch": 3_000, "lua": 5})

    assert told == [
        "new room has 1, 1 more than its budget",
        "worker/batch has 3010, 10 more than its budget",
    ]


def test_what_says_nothing_to_the_machine_is_not_counted() -> None:
    silent = '"""A module."""\n\nimport ast\n\n# why\n'
    code = 'x = (\n    1\n)\n\n\ndef f() -> int:\n    """Say."""\n    return x\n'

    assert code_lines(silent + code) == 5
