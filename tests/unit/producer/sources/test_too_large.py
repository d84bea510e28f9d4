"""Lines without an end and values without a bottom: named with their line, in bounded memory."""

import time
from collections.abc import Iterable, Iterator
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


def written(path: Path, *parts: bytes | Iterable[bytes]) -> str:
    with path.open("wb") as file:
        for part in parts:
            file.writelines([part] if isinstance(part, bytes) else part)
    return str(path)


def many(piece: bytes) -> Iterator[bytes]:
    """Yield 36 MB of a piece without a line break."""
    text = piece * (MEGABYTE // len(piece))
    yield from (text for _ in range(MEGABYTES))


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


@pytest.mark.parametrize("piece", amount([b'"x",'], nightly=[b"x", b"x,", b'"x",']))
def test_a_line_of_csv_without_an_end_costs_its_own_row_only(piece: bytes, tmp_path: Path) -> None:
    table = written(
        tmp_path / "t.csv", b"email,n\na@example.com,1\n", many(piece), b"\nb@example.com,2\n"
    )

    assert read(table) == ([(3, "too_large")], ["a@example.com", "b@example.com"], 0)


def test_a_header_without_an_end_is_named(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", many(b"x"))

    with pytest.raises(UsageWrong, match="line 1 is larger than"):
        read(table)


def test_a_row_of_csv_of_many_lines_without_an_end_is_bounded(tmp_path: Path) -> None:
    table = written(
        tmp_path / "t.csv",
        b"email,n\na@example.com,1\n",
        (b'"' + b"x" * 1_000 + b'\n",') * 18_000,
        b"\nb@example.com,2\n",
    )

    refused, people, most = read(table)

    assert (refused[0][0], people) == (3, ["a@example.com", "b@example.com"])
    assert most < LARGEST_PAYLOAD_BYTES


def test_an_element_of_an_array_that_is_too_large_costs_itself(tmp_path: Path) -> None:
    large = b'{"a": "%s"}' % (b"x" * LARGEST_PAYLOAD_BYTES)
    rows = FIRST.strip(), b",", large, b",", LAST.strip()
    name = written(tmp_path / "rows.json", b"[", *rows, b"]\n")

    refused, people, _ = read(name)

    assert refused == [(1, "too_large")]
    assert people == ["a@example.com", "b@example.com"]


ENDLESS = [(b"", b'{"a":'), (b'{"a":"', b"x"), (b"", b"["), (b"", b"x"), (b'{"a":[', b"1,")]


@pytest.mark.parametrize(("begins", "piece"), amount(ENDLESS[:2], nightly=ENDLESS))
def test_a_line_of_json_without_an_end_costs_its_own_row_only(
    begins: bytes, piece: bytes, tmp_path: Path
) -> None:
    name = written(tmp_path / "rows.ndjson", FIRST, begins, many(piece), LAST)

    refused, people, most = read(name)

    assert refused == [(2, "too_large")]
    assert people == ["a@example.com", "b@example.com"]
    assert most < MEGABYTES * MEGABYTE


def test_the_lines_of_a_value_without_an_end_are_looked_at_once() -> None:
    block = Block(1, b'{"email":\n' + b'"a",\n' * 300_000)
    begun = time.process_time()

    (payload,) = block.payloads()

    assert (payload.text, time.process_time() - begun < 4) == (block.text.rstrip(b",\n"), True)
