"""A file that is cut off, or has something else at its end, is damaged and never read as whole."""

import gzip
import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import opened, zstd
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import SegrelayError, SourceDamaged, UsageWrong
from tests.nightly import amount

COUNT = 1_100
PEOPLE = [{"email": f"p{n}@example.com", "n": str(n * 7919), "city": "Köln"} for n in range(COUNT)]
OBJECTS = [orjson.dumps(person) for person in PEOPLE]
SKIPPABLE = b"\x5a\x2a\x4d\x18\x06\x00\x00\x00hello\n"
"""A frame of zstd that holds nothing of the file."""


def table(separator: str = ",", quote: str = "", end: str = "\n") -> bytes:
    rows = [("email", "n", "city"), *(tuple(person.values()) for person in PEOPLE)]
    lines = (separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    return "".join(line + end for line in lines).encode()


def parquet() -> bytes:
    out = io.BytesIO()
    write_table(pa.Table.from_pylist(PEOPLE), out, row_group_size=500)
    return out.getvalue()


def in_two(pack: Callable[[bytes], bytes], text: bytes) -> bytes:
    half = len(text) // 2
    return pack(text[:half]) + pack(text[half:])


LINES = b"".join(text + b"\n" for text in OBJECTS)
TEXTS = {
    "lines": LINES,
    "lines of Windows": LINES.replace(b"\n", b"\r\n"),
    "one after the other": b"".join(OBJECTS),
    "pretty": b"\n".join(orjson.dumps(person, option=orjson.OPT_INDENT_2) for person in PEOPLE),
    "array": b"[" + b",".join(OBJECTS) + b"]",
    "array of lines": b"[\n" + b",\n".join(OBJECTS) + b"\n]\n",
    "array, pretty": orjson.dumps(PEOPLE, option=orjson.OPT_INDENT_2),
    "csv": table(),
    "csv in quotes": table(quote='"'),
    "csv of Windows": table(";", end="\r\n"),
}
PACKS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda text: gzip.compress(text, mtime=0),
    "gzip in two members": lambda text: in_two(gzip.compress, text),
    "zstd": zstd.compress,
    "zstd with a checksum": lambda text: zstd.compress(
        text, options={zstd.CompressionParameter.checksum_flag: 1}
    ),
    "zstd in two frames": lambda text: in_two(zstd.compress, text),
    "zstd behind a skippable frame": lambda text: SKIPPABLE + zstd.compress(text),
    "zstd behind an empty frame": lambda text: zstd.compress(b"") + zstd.compress(text),
    "zstd before a skippable frame": lambda text: zstd.compress(text) + SKIPPABLE,
}
PLAIN = {**TEXTS, "parquet": parquet()}
PACKABLE = ("lines", "array", "csv", "parquet")
PACKED = {
    f"{name}, {how}": pack(PLAIN[name])
    for how, pack in PACKS.items()
    for name in amount(PACKABLE if how in {"gzip", "zstd"} else PACKABLE[:1], nightly=PACKABLE)
}
FILES = {**PLAIN, **PACKED}


class Found(NamedTuple):
    """What was read of a file, and what was raised at its end."""

    rows: list[dict[str, Any]]
    refused: int
    error: SegrelayError | None


Read = Callable[[bytes], Found]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    path = tmp_path / "export"

    def write_and_read(content: bytes) -> Found:
        path.write_bytes(content)
        found, error = [], None
        try:
            with opened(str(path)) as file:
                for block in blocks_of(file, Columns()):
                    for row in block.payloads():
                        found.append(row)  # noqa: PERF402 - what came before an error is kept
        except SegrelayError as raised:
            error = raised
        rows = [row.value for row in found if not row.error]
        return Found(rows, len(found) - len(rows), error)

    return write_and_read


MORE_FORMATS = {
    "lines without a last break": LINES.rstrip(),
    "lines with a mark": b"\xef\xbb\xbf" + LINES,
    "csv with semicolons": table(";"),
    "csv with tabs": table("\t"),
}


@pytest.mark.parametrize(
    "content", [*FILES.values(), *MORE_FORMATS.values()], ids=[*FILES, *MORE_FORMATS]
)
def test_a_whole_file_gives_all_its_rows(content: bytes, read: Read) -> None:
    found = read(content)

    assert (found.error, found.refused) == (None, 0)
    assert found.rows == PEOPLE


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_never_ends_as_whole(name: str, read: Read) -> None:
    size = len(FILES[name])
    for kept in (1, 4, size // 100, size // 2, size * 99 // 100, size * 999 // 1000, size - 1):
        content = FILES[name][:kept]

        judge(name, content, read(content))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_cut_anywhere_ends_as_whole_only_behind_a_row(name: str, read: Read) -> None:
    for size in range(1, len(TEXTS[name]) // 500):
        content = TEXTS[name][:size]

        judge(name, content, read(content))


def judge(name: str, content: bytes, found: Found) -> None:
    """Hold what was read against what a cut file can tell."""
    if name in TEXTS and ends_behind_a_row(name, content):
        assert found.error is None
        assert found.refused == 0
        whole = found.rows[:-1] if name.startswith("csv") else found.rows
    else:
        assert found.error is not None, content[-60:]
        is_header = b"\n" not in content and isinstance(found.error, UsageWrong)
        assert isinstance(found.error, SourceDamaged) or is_header
        whole = found.rows
    assert whole == PEOPLE[: len(whole)]


def ends_behind_a_row(name: str, content: bytes) -> bool:
    """Say whether a text can't tell that it is cut; CSV can't within its last column either."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    if not text:
        return True
    if name.startswith("array"):
        return text.rstrip().endswith("]")
    if not name.startswith("csv"):
        return text.rstrip().endswith("}")
    *rows, last = text.splitlines(keepends=True)
    if not rows and not last.endswith(("\n", "\r")):
        return False
    cells = re.split("[,;\t]", last.rstrip("\r\n"))
    return len(cells) == 3 and re.fullmatch('[^"]*|".*"', cells[-1]) is not None


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("csv")])
def test_what_stands_behind_the_end_of_a_file_is_damage(name: str, read: Read) -> None:
    for junk in (b"junk", b"\0" * 512, b"}", b"\x1f\x8b\x08", b"(\xb5/\xfd"):
        found = read(FILES[name] + junk)

        if "gzip" in name and not junk.strip(b"\0"):  # tapes and disks pad with zeros: gzip agrees
            assert found.error is None
        else:
            assert isinstance(found.error, SourceDamaged), junk
        assert found.rows in (PEOPLE, [])


def test_a_file_without_content_is_empty_if_its_end_is_there(read: Read) -> None:
    for content in (gzip.compress(b""), zstd.compress(b""), SKIPPABLE, b"[\n]\n"):
        found = read(content)

        assert (found.error, found.rows, found.refused) == (None, [], 0)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_what_stands_before_a_cut_in_a_packed_file_is_read(how: str, read: Read) -> None:
    rng = random.Random(1)
    rows = [person | {"pad": rng.randbytes(100).hex()} for person in PEOPLE]
    packed = PACKS[how](b"".join(orjson.dumps(row) + b"\n" for row in rows))

    found = read(packed[: len(packed) * 6 // 10])

    assert isinstance(found.error, SourceDamaged)
    assert found.rows == rows[: len(found.rows)]
    assert COUNT // 4 < len(found.rows) < COUNT * 3 // 4


@pytest.mark.parametrize("how", ["gzip", "gzip in two members", "zstd with a checksum"])
def test_a_packed_file_with_a_wrong_bit_never_ends_as_whole(how: str, read: Read) -> None:
    packed = bytearray(PACKED[f"lines, {how}"])
    packed[len(packed) * 3 // 4] ^= 0x10

    assert isinstance(read(bytes(packed)).error, SourceDamaged)


def test_a_table_of_which_the_last_of_many_short_rows_has_no_line_break_is_whole(
    read: Read,
) -> None:
    found = read(b"email,n,city\na@example.com,1\nb@example.com")

    assert (found.error, [row["email"] for row in found.rows]) == (
        None, ["a@example.com", "b@example.com"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "rest",
    ['b@example.com,"open', 'b@example.com,"1\n2', 'b@example.com,"1\n', "b@example.com", "b"],
)
def test_a_table_whose_last_row_is_not_ended_is_damaged(rest: str, read: Read) -> None:
    found = read(b"email,n\na@example.com,1\n" + rest.encode())

    assert isinstance(found.error, SourceDamaged)
    assert [row["email"] for row in found.rows] == ["a@example.com"]


@pytest.mark.parametrize(
    "last",
    [b'{"email": "b@example.com', b'{"email": "b@example.com", x', b"]", b"-- 1,500 rows\n-- end"],
)
def test_a_last_line_that_is_broken_and_has_its_line_break_is_a_bad_row(
    last: bytes, read: Read
) -> None:
    found = read(LINES + last + b"\n")

    assert (found.error, found.refused, len(found.rows)) == (None, 1, COUNT)
    assert isinstance(read(LINES + last).error, SourceDamaged)
