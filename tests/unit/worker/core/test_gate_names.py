"""The gate's arithmetic, its names, and how it hears verdicts."""

import pytest

from segrelay.worker.core.gate import POLICY, Heard, SendTime, gate_id, heard
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
)


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


def test_a_send_time_expires_before_a_minute_could_hold_too_many():
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
