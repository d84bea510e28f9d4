"""The gate's arithmetic, its names, and how it hears verdicts."""

import pytest

from segrelay.worker.core.gate import MICROSECONDS, POLICY, Heard, SendTime, gate_id, heard
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
)
from tests.fakes.gate_record import GateRecord
from tests.fakes.gate_spacing import burst, spacing, tolerance

NOW = 1_764_000_000_000_000


@pytest.mark.parametrize(
    ("base_url", "name", "expected"),
    [
        ("https://Unification.UseInsider.com", "insider", "unification.useinsider.com|insider"),
        ("https://api.example.com/v1/", "", "api.example.com|"),
        ("http://127.0.0.1:8900", "one", "127.0.0.1:8900|one"),
        ("http://[::1]:8900", "one", "::1:8900|one"),
        ("https://someone:secret@api.example.com", "one", "api.example.com|one"),
    ],
)
def test_a_gate_is_named_for_host_and_authorization(base_url, name, expected):
    assert gate_id(base_url, name) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.5, 0), (99, 0), (100, 1), (600, 6), (5000, 50), (25_000, 50)]
)
def test_the_burst_is_one_percent_and_at_most_fifty(limit, expected):
    assert burst(limit, POLICY) == expected


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (0.5, 122),
        (1, 61),
        (1.9, 61),
        (2, 60),
        (3, 30),
        (60, 60 / 59),
        (600, 61 / 594),
        (25_000, 61 / 24_950),
    ],
)
def test_slots_lie_so_far_apart(limit, seconds):
    assert spacing(limit, POLICY) == pytest.approx(seconds * MICROSECONDS, abs=1)


def test_a_lowered_rate_has_no_longer_burst_than_the_full_one():
    assert tolerance(25_000, 5_000, POLICY) == tolerance(25_000, 25_000, POLICY)
    assert tolerance(600, 60, POLICY) == 0


def test_a_slot_expires_before_a_minute_could_hold_too_many():
    send_time = SendTime(at_ms=1000.0, now_ms=900.0, successes={}, probe=False, incident=0)

    assert not send_time.expired(1700.0)
    assert send_time.expired(1800.0)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Accepted(), Heard("works")),
        (BodyRefused("no"), Heard("body")),
        (TooLarge("much"), Heard("works")),
        (Unreadable("HTML"), Heard("unreadable", "HTML")),
        (Failed("503"), Heard("failed", "503")),
        (SlowDown(), Heard("slow")),
        (SlowDown(2.5), Heard("slow", wait=2_500_000)),
        (SlowDown(-3.0), Heard("slow")),
        (SlowDown(float("inf")), Heard("slow", wait=900_000_000)),
        (AccessRefused("no"), Heard("refused", "Production (credentials 1a2b3c4d): no")),
    ],
)
def test_a_verdict_is_heard_as(verdict, expected):
    said = heard(verdict, policy=POLICY, label="Production", fingerprint="1a2b3c4d")

    assert said == expected


def test_a_record_survives_being_stored():
    stored = {"tat": str(NOW), "why": "failing", "ok|vip": "17", "first|other": "0", "new": "x"}

    record = GateRecord.loads(stored)

    assert record == GateRecord(tat=NOW, why="failing", delivered={"vip": 17}, firsts={"other": 0})
