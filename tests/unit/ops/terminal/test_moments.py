"""Moments as people write them."""

import pytest

from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms, shown_us
from segrelay.worker.errors import UsageWrong

NOW_MS = 1_795_500_000_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-11-24T06:00:00Z", 1_795_500_000_000),
        ("2026-11-24T07:00:00+01:00", 1_795_500_000_000),
        ("2026-11-24T06:00:00", 1_795_500_000_000),
        ("2026-11-24", 1_795_478_400_000),
        ("2h", NOW_MS - 7_200_000),
        ("90s", NOW_MS - 90_000),
    ],
)
def test_moments_are_dates_or_how_long_ago(text, milliseconds):
    assert parse_moment_ms(text, "--since", now_ms=NOW_MS) == milliseconds


def test_what_is_neither_is_named():
    with pytest.raises(UsageWrong, match=r"--since yesterday: write a moment like"):
        parse_moment_ms("yesterday", "--since", now_ms=NOW_MS)


def test_moments_are_shown_in_utc():
    assert shown_ms(NOW_MS + 7) == "2026-11-24T06:00:00.007Z"
    assert shown_us(1_795_500_000_123_456) == "2026-11-24T06:00:00.123456Z"
