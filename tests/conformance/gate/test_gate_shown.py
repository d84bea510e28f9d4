"""What a gate says to who only looks."""

import pytest

from segrelay.worker.contract.settings.http import fingerprint_of
from segrelay.worker.core.gate import MICROSECONDS, Closed, Open
from tests.conformance.gate.conftest import START_US, access_with

NOW = START_US
OWN, ANOTHER = (fingerprint_of(access_with(credentials)) for credentials in ("", "another"))
LOWERED = {"factor": 500_000, "failed": 1_000_000, "failed_at": NOW}
FAILING = {"why": "failing", "closed": NOW + 5000, "suspects": "vip,other", "said": "503"}
ONE_FAILS = FAILING | {"suspects": "vip", "ok|vip": 1, "ok|other": 1}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, Open("ok")),
        ({"tat": NOW + 900_000}, Open("ok")),
        ({"first": 1}, Open("ok", probe=True)),
        (LOWERED, Open("slowed")),
        (FAILING | {"closed": NOW - 1}, Open("broken", probe=True)),
        (FAILING, Closed("broken", "failing", NOW / 1000 + 5, "503")),
        (ONE_FAILS, Closed("broken", "failing", NOW / 1000 + 5, "503")),
        (ONE_FAILS | {"suspects": "other"}, Open("broken")),
        ({"firsts": f"vip@{NOW + 5000}"}, Closed("ok", "probing", NOW / 1000 + 5)),
        ({"first": 1, "probing": NOW + 5000}, Closed("ok", "probing", NOW / 1000 + 5)),
        (
            {"pause": "access_refused", "scope": "access", "refused": OWN, "about": "no"},
            Closed("paused", "access_refused", None, "no"),
        ),
        (
            {"pause": "access_refused", "scope": "access", "refused": ANOTHER},
            Open("paused", probe=True),
        ),
        ({"pause": "unknown_answer", "scope": "all"}, Closed("paused", "unknown_answer", None)),
    ],
)
def test_a_look_says_whether_to_begin(bench, record, expected):
    bench.put(record)

    assert bench.look("vip") == {"vip": expected}


def test_a_look_sees_that_the_next_slot_is_far_away(bench):
    bench.put({"tat": NOW + 40 * MICROSECONDS})

    looks = bench.look("vip", gate=bench.gate_with(rate=1.0))

    assert looks == {"vip": Closed("ok", "rate", NOW / 1000 + 39_000)}


def test_a_look_and_a_status_change_nothing(bench):
    bench.put(ONE_FAILS)

    bench.look("vip", "other")
    bench.status(30.0)

    assert bench.fields() == {name: str(value) for name, value in ONE_FAILS.items()}


def test_a_look_outlives_a_clock_that_was_set_back(bench):
    bench.put(FAILING | {"seen": NOW, "firsts": f"vip@{NOW + 7000}"})
    bench.pass_seconds(-3600)

    looks = bench.look("vip")

    assert looks == {"vip": Closed("broken", "failing", bench.now_ms + 5, "503")}
    assert bench.status().until_ms == bench.now_ms + 5
    assert bench.fields()["firsts"] == f"vip@{bench.now_us + 7000}"


@pytest.mark.parametrize(
    ("record", "state", "is_open"),
    [
        ({}, "ok", True),
        (LOWERED, "slowed", True),
        ({"why": "too_many_requests", "closed": NOW + 1}, "slowed", False),
        (FAILING, "broken", False),
        (ONE_FAILS, "broken", True),
        (FAILING | {"closed": NOW - 1}, "broken", True),
        ({"pause": "access_refused", "scope": "access", "refused": OWN}, "paused", False),
        ({"pause": "unknown_answer", "scope": "all"}, "paused", False),
    ],
)
def test_a_status_names_the_state(bench, record, state, is_open):
    bench.put(record)

    shown = bench.status(600.0)

    assert (shown.state, shown.is_open) == (state, is_open)


def test_a_status_shows_the_lowest_rate_and_what_is_left_of_it(bench):
    bench.put(LOWERED | {"rates": f"300.0@{NOW};50.0@{NOW - 10**9}"})

    shown = bench.status(600.0)

    assert (shown.rate_per_minute, shown.factor) == (150.0, 0.5)
