"""The packed form of a ledger: what it keeps, how long it is, and what of older forms is read."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from segrelay.worker.contract.ledger import RECORD_FORMAT, Item, Record, pack, unpack, unpack_all
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import with_delivered, with_raised
from segrelay.worker.errors import FormatUnknown
from tests.ledger_keys import ledger_event

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE
AT = 1_790_000_000_123_456
YEAR_US = 31_557_600_000_000
LARGEST = 2**55 - 1
EDGES = sorted(
    {sign * (2**bits + off) for bits in range(55) for sign in (1, -1) for off in (-1, 0)}
)
"""Differences of two times at which another byte is needed, and those beside them."""

times = (
    st.integers(0, LARGEST)
    | st.sampled_from([0, 1, AT, LARGEST - 1, LARGEST])
    | st.sampled_from(EDGES).map(lambda edge: min(max(AT + edge, 0), LARGEST))
)
counts = st.integers(0, 2**32 - 1)
directions = st.sampled_from(list(Direction))
items = st.builds(Item, directions, times, times, counts, st.booleans(), st.integers(0, 255))
nothing = st.just(0)
delivered = st.builds(
    Item, directions, times.map(lambda at: at or 1), nothing, nothing, st.booleans(), nothing
)
numbers = st.integers(0, 150) | st.integers(0, 2**21) | st.just(2**40)
keys = st.tuples(numbers, numbers)
records = st.builds(Record, times, st.dictionaries(keys, items | delivered, max_size=8))


def entered(*at: int, trigger: int = 2) -> Record:
    """Return the record of somebody who entered an audience at each of these times."""
    record = Record()
    for audience, time_us in enumerate(at, 1):
        record = with_delivered(record, ledger_event(time_us, ENTER, trigger, audience))
    return record


@given(record=records)
def test_a_record_survives_being_packed(record: Record) -> None:
    assert unpack(pack(record)) == record


def test_a_time_keeps_each_microsecond_however_far_it_is_from_the_newest_data() -> None:
    for edge in EDGES:
        base = 0 if edge > 0 else LARGEST
        record = Record(base, {(1, 2): Item(EXIT, base + edge), (3, 4): Item(ENTER, base or 1)})

        assert unpack(pack(record)) == record


@pytest.mark.parametrize("apart_us", [1, 3_600_000_000, YEAR_US, 40 * YEAR_US])
def test_a_second_audience_costs_no_more_than_nine_bytes(apart_us: int) -> None:
    once, twice = entered(AT), entered(AT - apart_us, AT)
    raised = with_raised(twice, ledger_event(AT + apart_us, ENTER, 2, 1, state=True))

    assert len(pack(once)) == 9
    assert len(pack(twice)) <= 18
    assert len(pack(raised)) <= 18


def test_a_time_that_is_the_one_of_the_profile_data_takes_no_bytes_of_its_own() -> None:
    once = entered(AT)
    left = with_delivered(once, ledger_event(AT + 1, EXIT, 3, 1), data_sent=False)

    assert [len(pack(record)) for record in (once, entered(AT, AT), left)] == [9, 11, 12]


def test_the_example_of_the_format_is_what_is_written() -> None:
    record = Record(
        1_790_000_001_000_000,
        {(1, 2): Item(ENTER, 1_790_000_000_000_000), (3, 2): Item(ENTER, 1_790_000_001_000_000)},
    )

    assert pack(record) == bytes.fromhex("865bfeda352240 8304f0bdc0 c008")


@given(record=records, cut=st.integers(1, 200))
@example(record=Record(AT, {(1, 2): Item(ENTER, AT - YEAR_US)}), cut=1)
def test_a_record_that_was_cut_off_is_never_read_as_another_time(record: Record, cut: int) -> None:
    text = pack(record)
    assume(cut < len(text))

    read, unreadable = unpack_all({b"digest": text[:-cut]})

    if unreadable:
        assert isinstance(unreadable[b"digest"], IndexError)
    else:
        kept = list(read[b"digest"].items.items())
        assert read[b"digest"].data_us == record.data_us
        assert kept == list(record.items.items())[: len(kept)]


@pytest.mark.parametrize("first", [RECORD_FORMAT, RECORD_FORMAT + 1, 0, 127])
def test_a_record_of_a_format_to_come_is_refused(first: int) -> None:
    with pytest.raises(FormatUnknown, match=f"has format {first}, and this version"):
        unpack(bytes([first]) + pack(entered(AT))[1:])


@pytest.mark.parametrize(
    "record",
    [
        Record(-1, {(1, 2): Item(ENTER, 1)}),
        Record(LARGEST + 1, {(1, 2): Item(ENTER, LARGEST)}),
        Record(1, {(1, 2): Item(ENTER, 2**56)}),
        Record(1, {(1, 2): Item(ENTER, 2**56, tried_us=1)}),
    ],
)
def test_a_time_that_a_record_cannot_hold_is_refused(record: Record) -> None:
    with pytest.raises(OverflowError, match="after the year 3110"):
        pack(record)


def test_an_unknown_profile_has_an_empty_record() -> None:
    assert unpack(None) == Record()
