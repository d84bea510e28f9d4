"""Lines without an end and values without a bottom: named with their line, in bounded memory."""

import time
from pathlib import Path

import pytest

from segrelay.producer.sources.blocks import LARGEST_PAYLOAD_BYTES, Block, blocks_of
from segrelay.producer.sources.opening import opened
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import UsageWrong
from tests.nightly import amount

MEGABYTE = 1_000_000
MEGABYTES = 36
FIRST = b'{"email":"a@example.com"}\n'
LAST = b'\n{"email":"b@example.com"}\n'


def written(path: Path, *parts: bytes) -> str:
    with path.open("wb") as file:
        file.writelines(parts)
    return str(path)


def many(piece: bytes) -> list[bytes]:
    """Return 36 MB of a piece without a line break."""
    return [piece * (MEGABYTE // len(piece))] * MEGABYTES


def read(name: str) -> tuple[list[tuple[int, str]], list[str], int]:
    """Return the lines that are refused and why, the people, and the most that was held at once."""
    refused, people, most = [], [], 0
    with opened(name) as found:
        for block in blocks_of(found, Columns()):
            most = max(most, len(block.text))
            for row in block.payloads():
                most = max(most, len(row.text))
                if row.error:
                    refused.append((row.line, str(row.reason)))
                else:
                    people.append(row.value["email"])
    return refused, people, most


def csv_with(*parts: bytes) -> tuple[int, tuple[bytes, ...]]:
    return 3, (b"email,n\na@example.com,1\n", *parts, b"\nb@example.com,2\n")


def json_with(*parts: bytes) -> tuple[int, tuple[bytes, ...]]:
    return 2, (FIRST, *parts, LAST)


LARGE = b'{"a": "%s"}' % (b"x" * LARGEST_PAYLOAD_BYTES)
USUAL = [
    csv_with(*many(b'"x",')),
    json_with(*many(b'{"a":')),
    json_with(b'{"a":"', *many(b"x")),
    (1, (b"[", FIRST.strip(), b",", LARGE, b",", LAST.strip(), b"]\n")),
]
OTHERS = [
    *(csv_with(*many(piece)) for piece in (b"x", b"x,")),
    *(json_with(*many(piece)) for piece in (b"[", b"x")),
    json_with(b'{"a":[', *many(b"1,")),
]


@pytest.mark.parametrize(("line", "parts"), amount(USUAL, nightly=[*USUAL, *OTHERS]))
def test_a_row_without_an_end_costs_itself_only(
    line: int, parts: tuple[bytes, ...], tmp_path: Path
) -> None:
    refused, people, most = read(written(tmp_path / "rows", *parts))

    assert refused == [(line, "too_large")]
    assert people == ["a@example.com", "b@example.com"]
    assert most < MEGABYTES * MEGABYTE


def test_a_header_without_an_end_is_named(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", *many(b"x"))

    with pytest.raises(UsageWrong, match="line 1 is larger than"):
        read(table)


def test_a_row_of_csv_of_many_lines_without_an_end_is_bounded(tmp_path: Path) -> None:
    _, parts = csv_with((b'"' + b"x" * 1_000 + b'\n",') * 18_000)

    refused, people, most = read(written(tmp_path / "t.csv", *parts))

    assert (refused[0][0], people) == (3, ["a@example.com", "b@example.com"])
    assert most < LARGEST_PAYLOAD_BYTES


def test_the_lines_of_a_value_without_an_end_are_looked_at_once() -> None:
    block = Block(1, b'{"email":\n' + b'"a",\n' * 100_000)
    begun = time.process_time()

    (payload,) = block.payloads()

    assert (payload.text, time.process_time() - begun < 2) == (block.text.rstrip(b",\n"), True)
