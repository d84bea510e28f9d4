"""Sources: every format that exports have, told by its content, in blocks that never differ."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from segrelay.producer.events.payloads import Payload
from segrelay.producer.sources.blocks import BLOCK_BYTES, Block, block_times, blocks_of
from segrelay.producer.sources.opening import Format, opened, zstd
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import SourceDamaged, UsageWrong

ROWS = [{"email": f"p{n}@example.com", "first_name": "Ann"} for n in range(5)]
LINES = b"\n".join(map(orjson.dumps, ROWS)) + b"\n"
PRETTY = b"\n".join(orjson.dumps(row, option=orjson.OPT_INDENT_2) for row in ROWS)
ARRAY = orjson.dumps(ROWS)
CSV = b"email,first_name\n" + b"".join(f"{r['email']},Ann\n".encode() for r in ROWS)


@pytest.fixture
def blocks(tmp_path: Path) -> Callable[..., list[Block]]:
    """Return the blocks of a file with this content."""

    def read(content: bytes, *, first_rows: int = 0, times: int = 1, **columns: Any) -> list[Block]:
        path = tmp_path / "export"
        path.write_bytes(content)
        with opened(str(path)) as found:
            read = blocks_of(found, Columns(**columns), first_rows=first_rows, times=times)
            return list(read)

    return read


@pytest.fixture
def rows(blocks: Callable[..., list[Block]]) -> Callable[..., list[Payload]]:
    """Return the rows of a file with this content."""
    return lambda content, **how: [row for b in blocks(content, **how) for row in b.payloads()]


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table  # noqa: PLC0415

    out = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


CONTENTS = {
    "lines": LINES,
    "lines without a last break": LINES.rstrip(),
    "lines of Windows": LINES.replace(b"\n", b"\r\n"),
    "pretty": PRETTY,
    "array": ARRAY,
    "array, pretty": orjson.dumps(ROWS, option=orjson.OPT_INDENT_2),
    "with a mark": b"\xef\xbb\xbf" + LINES,
    "utf-16": LINES.decode().encode("utf-16"),
    "csv": CSV,
    "csv of Windows": CSV.replace(b"\n", b"\r\n"),
    "csv with semicolons": CSV.replace(b",", b";"),
    "csv with tabs": CSV.replace(b",", b"\t"),
    "csv, utf-16": CSV.decode().encode("utf-16"),
    "csv in quotes": CSV.replace(b"Ann", b'"Ann"'),
    "gzip": gzip.compress(LINES),
    "gzip in two members": gzip.compress(LINES[:60]) + gzip.compress(LINES[60:]),
    "zstd": zstd.compress(LINES),
    "zstd csv": zstd.compress(CSV),
    "parquet": parquet(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_each_format_gives_the_same_rows(name: str, rows: Callable[..., list[Payload]]) -> None:
    assert [row.value for row in rows(CONTENTS[name])] == ROWS


@pytest.mark.parametrize("content", [LINES, PRETTY, ARRAY, CSV])
def test_a_canary_is_exactly_the_first_block(
    content: bytes, blocks: Callable[..., list[Block]]
) -> None:
    found = blocks(content, first_rows=2)

    counts = [len(list(block.payloads())) for block in found]
    assert counts[0] == 2
    assert sum(counts) == 5


def test_many_rows_are_cut_into_blocks_that_lose_none(blocks: Callable[..., list[Block]]) -> None:
    lines = b"".join(
        orjson.dumps({"email": f"p{n}@example.com", "pad": "x" * 900}) + b"\n" for n in range(5_000)
    )

    found = blocks(lines)

    read = [row for block in found for row in block.payloads()]
    assert len(found) > 3
    assert [row.value["email"] for row in read] == [f"p{n}@example.com" for n in range(5_000)]
    assert [row.line for row in read] == list(range(1, 5_001))


def test_a_broken_row_is_named_with_its_line_and_costs_no_other(
    rows: Callable[..., list[Payload]],
) -> None:
    lines = LINES.splitlines(keepends=True)
    lines.insert(2, b"{broken\n")

    found = rows(b"".join(lines))

    assert [(row.line, bool(row.error)) for row in found] == [
        (1, False), (2, False), (3, True), (4, False), (5, False), (6, False),
    ]  # fmt: skip


def test_a_csv_row_with_too_many_cells_is_named_and_costs_no_other(
    rows: Callable[..., list[Payload]],
) -> None:
    found = rows(b"email,first_name\na@example.com,Ann,x\nb@example.com,Bob\n")

    assert [(row.line, bool(row.error)) for row in found] == [(2, True), (3, False)]


def test_a_quote_that_is_not_closed_costs_its_own_row_only(
    rows: Callable[..., list[Payload]],
) -> None:
    found = rows(b'email,n\na@example.com,"1\nb@example.com,"2"\nc@example.com,"3\nd@example.com,4')

    assert [(row.line, bool(row.error)) for row in found] == [
        (2, True), (3, False), (4, True), (5, False),
    ]  # fmt: skip
    assert [row.text for row in found if row.error] == [b'a@example.com,"1', b'c@example.com,"3']


def test_a_cell_may_have_several_lines(rows: Callable[..., list[Payload]]) -> None:
    found = rows(b'email,n\na@example.com,"1\n2"\nb@example.com,3\n')

    assert [(row.line, row.value["n"]) for row in found] == [(2, "1\n2"), (4, "3")]


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
    content: str, lines: list[int], rows: Callable[..., list[Payload]]
) -> None:
    found = rows(content.encode().replace(b"~", b"\xe9"))

    assert [(row.line, bool(row.error)) for row in found] == list(
        zip(lines, (False, True, False), strict=True)
    )
    assert [row.value.get("n", "é") for row in found if not row.error] == ["é", "é"]


def test_lists_and_maps_are_split_where_lytics_joins_them(
    rows: Callable[..., list[Payload]],
) -> None:
    content = b"email,segments,hours\na@example.com,vip&all,8=1&17=2\n"

    [row] = rows(content, maps=("hours",))

    assert row.value == {
        "email": "a@example.com",
        "segments": ["vip", "all"],
        "hours": {"8": "1", "17": "2"},
    }


def test_an_empty_cell_is_a_field_that_is_not_there(rows: Callable[..., list[Payload]]) -> None:
    [row] = rows(b"email,first_name\na@example.com,\n")

    assert row.value == {"email": "a@example.com"}


def test_columns_are_renamed(rows: Callable[..., list[Payload]]) -> None:
    [row] = rows(b"E-Mail;Name\na@example.com;Ann\n", renamed={"E-Mail": "email"})

    assert row.value == {"email": "a@example.com", "Name": "Ann"}


def test_a_file_without_a_header_says_what_to_do(rows: Callable[..., list[Payload]]) -> None:
    with pytest.raises(UsageWrong, match=r"has no header.*--columns"):
        rows(b"a@example.com,Ann\n")


def test_a_header_without_the_identity_is_to_be_mapped_and_not_to_be_read_as_a_row(
    rows: Callable[..., list[Payload]],
) -> None:
    with pytest.raises(UsageWrong, match=r"columns E-mail, Name, .*producer.backfill") as told:
        rows(b"E-mail;Name\na@example.com;Ann\n")

    assert "--columns" not in told.value.message


def test_a_file_without_a_header_is_read_with_named_columns(
    rows: Callable[..., list[Payload]],
) -> None:
    [row] = rows(b"a@example.com,Ann\n", names=("email", "first_name"))

    assert row.value == {"email": "a@example.com", "first_name": "Ann"}


@pytest.mark.parametrize("content", [b"PK\x03\x04...", b"%PDF-1.7", b"BZh9..."])
def test_what_holds_no_rows_is_named(content: bytes, rows: Callable[..., list[Payload]]) -> None:
    with pytest.raises(UsageWrong, match="export is"):
        rows(content)


def test_a_header_that_is_no_utf_8_says_how_to_recode_the_file(
    rows: Callable[..., list[Payload]],
) -> None:
    with pytest.raises(UsageWrong, match=r"line 1 holds bytes that are no UTF-8; .*iconv"):
        rows("email,straße\na@x.example,Köln\n".encode("cp1252"))


def test_an_empty_file_holds_no_rows(rows: Callable[..., list[Payload]]) -> None:
    assert rows(b" \n") == []


def test_an_archive_that_is_cut_in_the_middle_is_named_with_the_line(
    rows: Callable[..., list[Payload]],
) -> None:
    many = b"".join(
        orjson.dumps({"email": f"{n}@x.example", "n": n * 7919}) + b"\n" for n in range(90_000)
    )
    packed = gzip.compress(many)

    with pytest.raises(SourceDamaged, match="behind the block of line"):
        rows(packed[: len(packed) - 2_000])


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    for name, content in (("a", LINES), ("b", LINES), ("c", LINES + b" ")):
        (tmp_path / name).write_bytes(content)

    digests = []
    for name in "abc":
        with opened(str(tmp_path / name)) as found:
            digests.append(found.digest)
            assert found.format is Format.OBJECTS

    assert digests[0] == digests[1] != digests[2]


def test_a_file_that_changes_between_two_openings_has_another_digest(tmp_path: Path) -> None:
    digests = []
    for content in (LINES, LINES + LINES):
        (tmp_path / "a").write_bytes(content)
        with opened(str(tmp_path / "a")) as found:
            digests.append(found.digest)

    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("partitions", "times"), [(1, 1), (16, 1), (127, 1), (128, 2), (256, 4), (1_024, 8)]
)
def test_blocks_are_larger_where_partitions_are_many(partitions: int, times: int) -> None:
    assert block_times(partitions) == times


@pytest.mark.parametrize("content", [LINES, CSV], ids=["lines", "csv"])
def test_larger_blocks_hold_the_same_rows(
    content: bytes, blocks: Callable[..., list[Block]]
) -> None:
    head, _, rows = content.partition(b"\n") if content is CSV else (b"", b"", content)
    many = head + b"\n" * bool(head) + rows * (9 * BLOCK_BYTES // 4 // len(rows))

    usual, larger = blocks(many), blocks(many, times=2)

    assert len(larger) < len(usual)
    assert [r.value for b in larger for r in b.payloads()] == [
        r.value for b in usual for r in b.payloads()
    ]
