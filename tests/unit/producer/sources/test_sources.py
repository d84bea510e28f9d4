"""Sources: every format that exports have, told by its content, in blocks that never differ."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from segrelay.producer.events.payloads import Payload
from segrelay.producer.sources.blocks import Block, blocks_of
from segrelay.producer.sources.opening import opened
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import UsageWrong

ROWS = [{"email": f"p{n}@example.com", "first_name": "Ann"} for n in range(5)]
LINES = b"\n".join(map(orjson.dumps, ROWS)) + b"\n"
PRETTY = b"\n".join(orjson.dumps(row, option=orjson.OPT_INDENT_2) for row in ROWS)
ARRAY = orjson.dumps(ROWS)
CSV = b"email,first_name\n" + b"".join(f"{r['email']},Ann\n".encode() for r in ROWS)


Blocks = Callable[..., list[Block]]
Rows = Callable[..., list[Payload]]


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    """Return the blocks of a file with this content."""

    def read(content: bytes, *, first_rows: int = 0, **columns: Any) -> list[Block]:
        path = tmp_path / "export"
        path.write_bytes(content)
        with opened(str(path)) as found:
            return list(blocks_of(found, Columns(**columns), first_rows=first_rows))

    return read


@pytest.fixture
def rows(blocks: Blocks) -> Rows:
    """Return the rows of a file with this content."""
    return lambda content, **how: [row for b in blocks(content, **how) for row in b.payloads()]


@pytest.mark.parametrize("content", [LINES, PRETTY, ARRAY, CSV])
def test_a_canary_is_exactly_the_first_block(content: bytes, blocks: Blocks) -> None:
    found = blocks(content, first_rows=2)

    counts = [len(list(block.payloads())) for block in found]
    assert counts[0] == 2
    assert sum(counts) == 5


def test_many_rows_are_cut_into_blocks_that_lose_none(blocks: Blocks) -> None:
    lines = b"".join(
        orjson.dumps({"email": f"p{n}@example.com", "pad": "x" * 900}) + b"\n" for n in range(5_000)
    )

    found = blocks(lines)

    read = [row for block in found for row in block.payloads()]
    assert len(found) > 3
    assert [row.value["email"] for row in read] == [f"p{n}@example.com" for n in range(5_000)]
    assert [row.line for row in read] == list(range(1, 5_001))


def test_a_cell_may_have_several_lines(rows: Rows) -> None:
    found = rows(b'email,n\na@example.com,"1\n2"\nb@example.com,3\n')

    assert [(row.line, row.value["n"]) for row in found] == [(2, "1\n2"), (4, "3")]


BROKEN_THIRD = b"".join(
    [*LINES.splitlines(keepends=True)[:2], b"{broken\n", *LINES.splitlines(keepends=True)[2:]]
)
UNCLOSED = b'email,n\na@example.com,"1\nb@example.com,"2"\nc@example.com,"3\nd@example.com,4'


@pytest.mark.parametrize(
    ("content", "lines", "wrong"),
    [
        (BROKEN_THIRD, [1, 2, 3, 4, 5, 6], [b"{broken"]),
        (b"email,first_name\na@example.com,Ann,x\nb@example.com,Bob\n", [2, 3],
         [b"a@example.com,Ann,x"]),
        (UNCLOSED, [2, 3, 4, 5], [b'a@example.com,"1', b'c@example.com,"3']),
    ],
    ids=["a broken row", "too many cells", "a quote that is not closed"],
)  # fmt: skip
def test_a_wrong_row_is_named_with_its_line_and_costs_no_other(
    content: bytes, lines: list[int], wrong: list[bytes], rows: Rows
) -> None:
    found = rows(content)

    assert [row.line for row in found] == lines
    assert [row.text.strip() for row in found if row.error] == wrong


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ('{"email":"a@x","n":"é"}\n{"email":"~@x"}\n{"email":"c@x","n":"é"}\n', [1, 2, 3]),
        ('{"email":"a@x"}\n{"email":"~@x"}\n{"email":"c@x"}\n', [1, 2, 3]),
        ('[{"email":"a@x"},\n{"email":"~@x"},\n{"email":"c@x"}]\n', [1, 2, 3]),
        ("email,n\na@x,é\n~@x,2\nc@x,é\n", [2, 3, 4]),
    ],
)
def test_a_row_in_another_encoding_is_named_and_costs_no_other(
    content: str, lines: list[int], rows: Rows
) -> None:
    found = rows(content.encode().replace(b"~", b"\xe9"))

    assert [(row.line, bool(row.error)) for row in found] == list(
        zip(lines, (False, True, False), strict=True)
    )
    assert [row.value.get("n", "é") for row in found if not row.error] == ["é", "é"]


JOINED = b"email,segments,hours\na@example.com,vip&all,8=1&17=2\n"
SPLIT = {"email": "a@example.com", "segments": ["vip", "all"], "hours": {"8": "1", "17": "2"}}
ANN = {"email": "a@example.com", "first_name": "Ann"}


@pytest.mark.parametrize(
    ("content", "columns", "values"),
    [
        (JOINED, {"maps": ("hours",)}, [SPLIT]),
        (b"email,first_name\na@example.com,\n", {}, [{"email": "a@example.com"}]),
        (b"E-Mail;first_name\na@example.com;Ann\n", {"renamed": {"E-Mail": "email"}}, [ANN]),
        (b"a@example.com,Ann\n", {"names": ("email", "first_name")}, [ANN]),
        (b" \n", {}, []),
    ],
    ids=["lists and maps", "an empty cell", "renamed", "no header and named columns", "empty"],
)
def test_cells_become_fields(content: bytes, columns: Any, values: list[Any], rows: Rows) -> None:
    assert [row.value for row in rows(content, **columns)] == values


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04...", "export is"),
        (b"%PDF-1.7", "export is"),
        (b"BZh9...", "export is.*bzcat FILE . segrelay backfill start -"),
        ("email\nann@example.com\n".encode("utf-16"), "export is UTF-16: `iconv -f utf-16"),
        (b"a@example.com,Ann\n", r"has no header.*--columns"),
        # A header without the identity is to be mapped, and not to be read as a row.
        (b"E-mail;Name\na@example.com;Ann\n",
         r"^(?!.*--columns).*columns E-mail, Name, .*producer.backfill"),
        (b"\nemail,name\na@example.com,Ann\n", "none is the identity field"),
        ("email,straße\na@x.example,Köln\n".encode("cp1252"),
         r"line 1 holds bytes that are no UTF-8; .*iconv"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_as_rows_is_named_with_what_to_do(
    content: bytes, told: str, rows: Rows
) -> None:
    with pytest.raises(UsageWrong, match=f"(?s){told}"):
        rows(content)


def test_the_digest_tells_versions_of_a_file_apart(tmp_path: Path) -> None:
    digests = []
    for name, content, moment in (("a", LINES, 1), ("b", LINES, 1), ("c", LINES, 2), ("d", b"", 1)):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (moment, moment))
        with opened(str(tmp_path / name)) as found:
            digests.append(found.digest)

    first, same, *others = digests
    assert first == same
    assert len({first, *others}) == 3
