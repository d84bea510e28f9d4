"""Times come in as RFC 3339 and are microseconds from then on."""

import pytest

from segrelay.producer.events.values import format_time, parse_time, refuse_forgotten, refuse_future
from segrelay.worker.errors import PayloadRefused

TEN = 1_793_527_200_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01T10:00:00Z", TEN),
        ("2026-11-01t10:00:00z", TEN),
        ("2026-11-01 10:00:00Z", TEN),
        ("2026-11-01T10:00:00.000000Z", TEN),
        ("2026-11-01T10:00:00.872199615Z", TEN + 872_199),
        ("2026-11-01T10:00:00.9999999999Z", TEN + 999_999),
        ("2026-11-01T10:00:00.5Z", TEN + 500_000),
        ("2026-11-01T12:00:00+02:00", TEN),
        ("2026-11-01T05:30:00-04:30", TEN),
        ("2026-11-01T12:00:00+0200", TEN),
        ("2026-11-01T10:00:00-00:00", TEN),
        ("2026-11-01T09:59:60Z", TEN),
        ("1970-01-01T00:00:01Z", 1_000_000),
    ],
)
def test_a_time_becomes_microseconds(text, expected):
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        None, 7, 1.5, True, [], {}, "", "now", "2026-11-01", "2026-11-01T10:00:00", "10:00:00Z",
        "2026-13-01T10:00:00Z", "2026-02-30T10:00:00Z", "2026-11-01T24:00:00Z",
        "2026-11-01T10:60:00Z", "2026-11-01T10:00:61Z", "2026-11-01T10:00:00.Z",
        "2026-11-01T10:00:00+24:00", "2026-11-01T10:00:00+01:60", "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z", " 2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z ",
        "2026-11-01T10:00:00Z\n", "٢٠٢٦-11-01T10:00:00Z", "0000-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(value):
    with pytest.raises(PayloadRefused) as refused:
        parse_time(value)

    assert refused.value.reason == "bad_time"


def test_the_message_does_not_repeat_what_may_be_a_profile_field():
    with pytest.raises(PayloadRefused, match="A text of 15 characters"):
        parse_time("ann@example.com")


def test_a_time_survives_being_written_and_read():
    assert parse_time(format_time(TEN + 123_456)) == TEN + 123_456


def test_five_minutes_ahead_are_accepted_and_more_are_not():
    refuse_future(TEN + 300_000_000, TEN)

    with pytest.raises(PayloadRefused, match="301 s ahead") as refused:
        refuse_future(TEN + 301_000_000, TEN)
    assert refused.value.reason == "future_time"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9999-12-31T23:59:59-05:00", "bad_time"),
        ("9999-12-31T23:59:60Z", "bad_time"),
        ("9999-12-31T23:59:59.999999Z", "future_time"),
    ],
)
def test_the_end_of_time_is_refused_like_any_other_time(text, reason):
    with pytest.raises(PayloadRefused) as refused:
        refuse_future(parse_time(text), 1)

    assert refused.value.reason == reason


def test_what_is_older_than_the_ledger_is_refused():
    refuse_forgotten(TEN, TEN)
    refuse_forgotten(1, 0)

    with pytest.raises(PayloadRefused, match="ledger_retention") as refused:
        refuse_forgotten(TEN - 1, TEN)
    assert refused.value.reason == "older_than_ledger"
