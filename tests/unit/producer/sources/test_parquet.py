"""Parquet: whole columns become the same rows as each value by itself would."""

import base64
import io
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from segrelay.producer.events.payloads import Payload, reread
from segrelay.producer.sources.blocks import Block, blocks_of
from segrelay.producer.sources.opening import opened
from segrelay.producer.sources.tables import Columns, read_parquet, rows_of_batches
from tests.nightly import amount

MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - Arrow has them
IN_UTC = MOMENTS.map(lambda at: at.replace(tzinfo=UTC))
EXACT = st.integers(-(2**63), 2**63 - 1)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text()),
    (pa.large_string(), st.text()),
    (pa.dictionary(pa.int32(), pa.string()), st.text(max_size=2)),
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), EXACT),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates(date(1970, 1, 1))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("s"), MOMENTS.map(lambda at: at.replace(microsecond=0))),
    (pa.timestamp("ms", "UTC"), MOMENTS.map(lambda at: at.replace(microsecond=7_000, tzinfo=UTC))),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "UTC"), IN_UTC),
    (pa.timestamp("us", "+02:00"), IN_UTC),
    (pa.timestamp("us", "Europe/Berlin"), IN_UTC),
    (pa.duration("us"), st.timedeltas(timedelta(-9), timedelta(9))),
    (pa.decimal128(20, 4), st.decimals(-(10**9), 10**9, places=4)),
    (pa.binary(), st.binary()),
    (pa.null(), st.none()),
    (pa.list_(pa.string()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    (pa.list_(pa.date32()), st.lists(st.none() | st.dates(), max_size=3)),
    (pa.list_(pa.list_(pa.int64())), st.lists(st.lists(st.none() | EXACT, max_size=2), max_size=2)),
    (
        pa.struct([("a", pa.int64()), ("at", pa.date32())]),
        st.fixed_dictionaries({"a": st.none() | EXACT, "at": st.none() | st.dates()}),
    ),
    (pa.map_(pa.string(), pa.int64()), st.dictionaries(st.text(max_size=3), EXACT, max_size=2)),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Invent a table of a few columns with nulls; two may have the same name."""
    size = draw(st.integers(1, 6))
    names, columns = [], []
    for kind, values in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)):
        names.append(draw(st.sampled_from(["email", "a", "b", "ü", "c", "d"])))
        some = st.lists(values | st.none(), min_size=size, max_size=size)
        columns.append(pa.array(draw(some), kind))
    return pa.table(columns, names=names)


def plain(value: Any) -> Any:
    """Return one value in the types of JSON."""
    match value:
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list():
            return [plain(each) for each in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def rows_of(table: pa.Table) -> list[Payload]:
    return list(map(reread, rows_of_batches(table.to_batches(max_chunksize=4))))


def test_a_map_is_an_object_wherever_it_stands() -> None:
    levels = pa.map_(pa.string(), pa.int64())
    table = pa.table(
        {
            "levels": pa.array([[("gold", 3), ("none", None)], []], levels),
            "shops": pa.array([[[("paris", 1)]], None], pa.list_(levels)),
        }
    )

    rows = [row.value for row in rows_of(table)]

    assert rows == [{"levels": {"gold": 3, "none": None}, "shops": [{"paris": 1}]}, {"levels": {}}]


@settings(max_examples=amount(100, nightly=10_000), deadline=None)
@given(tables())
def test_columns_give_the_rows_that_single_values_give(table: pa.Table) -> None:
    expected = [
        {name: plain(value) for name, value in row.items() if value is not None}
        for row in table.to_pylist(maps_as_pydicts="lossy")
    ]

    rows = rows_of(table)

    assert [row.value for row in rows] == expected
    assert [[type(each) for each in row.value.values()] for row in rows] == [
        [type(each) for each in row.values()] for row in expected
    ]
    assert [row.line for row in rows] == list(range(1, 1 + len(expected)))
    assert not any(row.error for row in rows)


def blocks(content: bytes, folder: Path, **how: int) -> list[Block]:
    path = folder / "people.parquet"
    path.write_bytes(content)
    with opened(str(path)) as found:
        return list(blocks_of(found, Columns(), **how))


def written(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, **options)
    return out.getvalue()


def test_blocks_have_a_thousand_rows_however_the_file_is_grouped(tmp_path: Path) -> None:
    emails = [f"p{n}@example.com" for n in range(3_210)]
    content = written(pa.table({"email": emails}), row_group_size=700)

    found = blocks(content, tmp_path, first_rows=10)

    assert [block.line for block in found] == [1, 11, 1_011, 2_011, 3_011]
    assert [len(list(block.payloads())) for block in found] == [10, 1_000, 1_000, 1_000, 200]
    rows = [row for block in found for row in block.payloads()]
    assert [row.value["email"] for row in rows] == emails
    assert [row.line for row in rows] == list(range(1, 3_211))


def test_a_map_whose_keys_have_no_form_costs_only_its_rows() -> None:
    scores = pa.array([[(b"a", 1)], None], pa.map_(pa.binary(), pa.int64()))

    first, second = rows_of(pa.table({"email": ["a", "b"], "scores": scores}))

    assert first.error == "The row holds a value that is no text, number or time, in scores."
    assert second.value == {"email": "b"}


def test_a_value_that_is_none_costs_only_its_row() -> None:
    broken = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0\6\0\0\0"), pa.py_buffer(b"hi\xff\xffyo")
    )
    at = pa.array([0, 2**62, 1_000_000], pa.timestamp("us", "UTC"))
    table = pa.table({"email": ["a", "b", "c"], "note": broken, "at": at})

    first, second, third = rows_of(table)

    assert first.value == {"email": "a", "note": "hi", "at": "1970-01-01T00:00:00+00:00"}
    assert third.value["note"] == "yo"
    assert second.error == "The row holds a value that is no text, number or time, in note, at."
    assert (second.line, orjson.loads(second.text)) == (2, {"email": "b"})


@pytest.mark.parametrize("tz", [None, "UTC", "Europe/Berlin"])
def test_times_in_nanoseconds_are_cut_off_behind_microseconds(tz: str | None) -> None:
    at = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", tz))

    first, second = rows_of(pa.table({"at": at, "n": [1, 2]}))

    zone = {None: None, "UTC": UTC, "Europe/Berlin": timezone(timedelta(hours=1))}[tz]
    moment = datetime.fromisoformat(first.value["at"])
    whole = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert moment == (whole.astimezone(zone) if zone else whole.replace(tzinfo=None))
    assert second.value == {"n": 2}


def test_a_damaged_file_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    numbers = list(range(5_000))
    content = bytearray(
        written(pa.table({"n": numbers}), row_group_size=1_500, use_dictionary=False)
    )
    at = parquet.read_metadata(io.BytesIO(content)).row_group(2).column(0).data_page_offset
    content[at : at + 20] = b"\xff" * 20
    path = tmp_path / "people.parquet"
    path.write_bytes(content)

    with opened(str(path)) as found:
        rows = [reread(row).value["n"] for row in read_parquet(found)]

    assert rows == numbers[: len(rows)]
    assert len(rows) == 3_000
    assert found.damages
    assert found.damages[0].startswith(f"row {len(rows) + 1} can't be read (")
