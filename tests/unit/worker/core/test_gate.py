"""The gate's arithmetic, its words, and what `look` and `status` say."""

from dataclasses import replace

import pytest

from worker.core.gate import (
    MICROSECONDS,
    POLICY,
    Closed,
    Open,
    Slot,
    burst,
    gate_id,
    spacing,
    tolerance,
)
from worker.core.gate_hearing import Heard, heard
from worker.core.gate_rules import GateRecord, look, status
from worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
)

NOW = 1_764_000_000_000_000
LOWERED = GateRecord(factor=500_000, failed=1_000_000, failed_at=NOW)


def asked(gate, *, fingerprint="a", triggers=(), rate=600.0, now=NOW):
    return look(gate, rate=rate, fingerprint=fingerprint, triggers=triggers, now=now, policy=POLICY)


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
    slot = Slot(at_ms=1000.0, now_ms=900.0, successes=0, probe=False, incident=0)

    assert not slot.expired(1700.0)
    assert slot.expired(1800.0)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Accepted(), Heard("works")),
        (BodyRefused("no"), Heard("works")),
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


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (GateRecord(), Open("ok")),
        (GateRecord(tat=NOW + 900_000), Open("ok")),
        (GateRecord(first=1), Open("ok", probe=True)),
        (LOWERED, Open("slowed")),
        (
            GateRecord(why="failing", closed=NOW - 1, suspects="vip,other", avoid="x"),
            Open("broken", probe=True, avoid="x"),
        ),
        (
            GateRecord(why="failing", closed=NOW + 5000, suspects="vip,other", said="503"),
            Closed("broken", "failing", NOW / 1000 + 5, "503"),
        ),
        (
            GateRecord(why="failing", closed=NOW + 5000, suspects="vip", said="503"),
            Closed("broken", "failing", NOW / 1000 + 5, "503"),
        ),
        (
            GateRecord(
                why="failing", closed=NOW + 5000, suspects="vip", delivered={"vip": 1, "other": 1}
            ),
            Open("broken"),
        ),
        (
            GateRecord(first=1, probing=NOW + 5000),
            Closed("ok", "probing", NOW / 1000 + 5),
        ),
        (
            GateRecord(pause="access_refused", scope="access", refused="a", about="no"),
            Closed("paused", "access_refused", None, "no"),
        ),
        (
            GateRecord(pause="access_refused", scope="access", refused="b"),
            Open("paused", probe=True),
        ),
        (
            GateRecord(pause="unknown_answer", scope="all"),
            Closed("paused", "unknown_answer", None),
        ),
    ],
)
def test_a_look_says_whether_to_begin(gate, expected):
    assert asked(gate) == expected


def test_a_look_sees_that_the_next_slot_is_far_away():
    gate = GateRecord(tat=NOW + 40 * MICROSECONDS)

    assert asked(gate, rate=1.0) == Closed("ok", "rate", NOW / 1000 + 39_000)


def test_a_look_for_the_failing_trigger_alone_is_closed():
    gate = GateRecord(
        why="failing", closed=NOW + 5000, suspects="vip", delivered={"vip": 1, "other": 1}
    )

    assert isinstance(asked(gate, triggers=["vip"]), Closed)
    assert isinstance(asked(gate, triggers=["vip", "other"]), Open)


@pytest.mark.parametrize(
    ("gate", "state", "is_open"),
    [
        (GateRecord(), "ok", True),
        (LOWERED, "slowed", True),
        (GateRecord(why="too_many_requests", closed=NOW + 1), "slowed", False),
        (GateRecord(why="failing", closed=NOW + 1, suspects="vip,other"), "broken", False),
        (GateRecord(why="failing", closed=NOW - 1, suspects="vip,other"), "broken", True),
        (GateRecord(pause="access_refused", scope="access", refused="a"), "paused", False),
        (GateRecord(pause="unknown_answer", scope="all"), "paused", False),
    ],
)
def test_a_status_names_the_state(gate, state, is_open):
    shown = status(gate, rate=600.0, now=NOW, policy=POLICY)

    assert (shown.state, shown.is_open) == (state, is_open)


def test_a_status_shows_the_lowest_rate_and_what_is_left_of_it():
    gate = replace(LOWERED, rates=f"300.0@{NOW};50.0@{NOW - 10**9}")

    shown = status(gate, rate=600.0, now=NOW, policy=POLICY)

    assert (shown.rate_per_minute, shown.factor) == (150.0, 0.5)


def test_a_status_without_any_rate_is_possible():
    assert status(GateRecord(), rate=0.0, now=NOW, policy=POLICY).rate_per_minute == 0.0


def test_a_record_survives_being_stored():
    stored = {"tat": str(NOW), "why": "failing", "ok|vip": "17", "first|other": "0", "new": "x"}

    record = GateRecord.loads(stored)

    assert record == GateRecord(tat=NOW, why="failing", delivered={"vip": 17}, firsts={"other": 0})
