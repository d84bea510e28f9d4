"""The rule that the first line of a docstring can be understood without the code below it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("worker", "producer", "ops", "jsonnet", "javascript", "sandbox", "tools", "segrelay")

PATTERNS = {
    # A question or a clause instead of a noun phrase or an imperative. "When …" and "Where …" are
    # understood where a main clause follows: "When a lease lapses, …".
    "begins with a question word": r"^(What|Who|Whom|Whose|Which|Why|How|Whether)\b",
    "begins with a clause": r"^(When|Where|That)\b(?!.*,)",
    # It leaves open who does something: "Pass …", not "Let … have".
    "begins with Let": r"^Let\b",
    "begins with Of": r"^Of\b",
    "begins with So many": r"^So (many|much|few|long|often)\b",
    # They refer to something that the reader has not seen.
    "says 'such'": r"\bsuch\b(?! (as|that)\b)",
    "says 'so many'": r"\b[Ss]o (many|much|few|long)\b(?! as)",
    "says 'the same where'": r"\b[Tt]he same where\b",
    # A clause where an engineer would write a noun.
    "says 'of what'": r"\bof what\b",
    "says 'what is left'": r"\b[Ww]hat is left\b",
}
"""For each kind of riddle, the pattern of a first line that is one."""

EXAMPLES = {
    "Whom a person at the command line means.": True,
    "What in the status wants a person.": True,
    "Let a batch that was read anew have what was rendered already.": True,
    "What is left of so many drains was loaded for all.": True,
    "So many of the entries it may have": True,
    "The same where no message waits": True,
    "Of the garbage collector while a drain runs": True,
    "Where the parts of a file begin": True,
    "Resolve what an operator typed to a profile key.": False,
    "The problems in the status that an operator has to solve.": False,
    "Pass the rendered parcels to the batch that was read again.": False,
    "When the queue is empty, wait for the doorbell.": False,
    "Answers of a destination such as Insider.": False,
}
"""First lines, and whether each is a riddle."""

ALLOWED = 0
"""How many first lines may match. Lower it after the last rewriting; never raise it."""


def first_lines() -> Iterator[tuple[str, str]]:
    """Yield the place and the first line of each docstring, also of constants."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                for statement in getattr(node, "body", []) if has_statements(node) else []:
                    match statement:
                        case ast.Expr(value=ast.Constant(value=str(text))) if text.strip():
                            location = f"{path.relative_to(ROOT)}:{statement.lineno}"
                            yield location, text.strip().splitlines()[0]


def has_statements(node: ast.AST) -> bool:
    return isinstance(getattr(node, "body", None), list)


def riddles_in(line: str) -> list[str]:
    return [kind for kind, pattern in PATTERNS.items() if re.search(pattern, line)]


@pytest.mark.parametrize(("line", "is_riddle"), EXAMPLES.items())
def test_the_patterns_tell_riddles_from_plain_sentences(line: str, is_riddle: bool) -> None:
    assert bool(riddles_in(line)) is is_riddle


def test_first_lines_of_docstrings_are_not_riddles() -> None:
    found = [
        f"{location}: {', '.join(kinds)}: {line}"
        for location, line in first_lines()
        if (kinds := riddles_in(line))
    ]

    assert len(found) <= ALLOWED, "\n".join(
        [f"{len(found)} first lines are riddles; {ALLOWED} are allowed.", *found]
    )
