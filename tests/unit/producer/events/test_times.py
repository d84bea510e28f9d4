"""Times come in as RFC 3339 and are microseconds from then on."""

import pytest

from segrelay.producer.events.payloads import parse_time, refuse_forgotten
from segrelay.worker.errors import PayloadRefused

TEN = 1_793_527_200_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01T10:00:00Z", TEN),
        ("2026-11-01t10:00:00z", TEN),
        ("2026-11-01 10:00:00Z", TEN),
        ("2026-11-01T10:00:00.872199615Z", TEN + 872_199),
        ("2026-11-01T10:00:00.9999999999Z", TEN + 999_999),
        ("2026-11-01T12:00:00+02:00", TEN),
        ("2026-11-01T12:00:00+0200", TEN),
        ("2026-11-01T10:00:00-00:00", TEN),
        ("2026-11-01T09:59:60Z", TEN),
        ("1970-01-01T00:00:01Z", 1_000_000),
    ],
)
def test_a_time_becomes_microseconds(text, expected):
    assert parse_time(text) == expected


def test_what_is_older_than_the_ledger_is_refused():
    refuse_forgotten(TEN, TEN)
    refuse_forgotten(1, 0)

    with pytest.raises(PayloadRefused, match="ledger_retention") as refused:
        refuse_forgotten(TEN - 1, TEN)
    assert refused.value.reason == "older_than_ledger"
