"""What goes wrong is drawn from a seed, in the shares that were asked for."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest

from segrelay.sandbox.insider.faults import Faults
from segrelay.sandbox.insider.rules import ATTRIBUTE_DELETE, UPSERT
from segrelay.sandbox.settings import SandboxSettings


def faults(**settings) -> Faults:
    return Faults(SandboxSettings(**settings))


def test_something_in_front_of_insider_answers_with_a_page():
    rule = {"status": 403, "html": True}

    fault = faults(failures=[rule]).draw(UPSERT, b"{}")

    assert fault.answer is not None
    assert (fault.answer.status, fault.answer.body[:6]) == (403, b"<html>")
    assert fault.takes_effect == "never"


def test_shares_are_met_and_a_seed_repeats_them():
    settings = {
        "error_shares": {"500": 0.1, "429": 0.1},
        "lost_answers": 0.1,
        "lost_requests": 0.1,
        "late_share": 0.1,
    }

    drawn = [
        [faults.draw(UPSERT, b"").name for _ in range(5_000)]
        for faults in (
            faults(seed=7, **settings),
            faults(seed=7, **settings),
            faults(seed=8, **settings),
        )
    ]

    assert drawn[0] == drawn[1] != drawn[2]
    counts = Counter(drawn[0])
    assert counts[""] == pytest.approx(2_500, rel=0.1)
    names = ("error.500", "error.429", "lost_answer", "lost_request", "late")
    assert all(counts[name] == pytest.approx(500, rel=0.2) for name in names)


@pytest.mark.parametrize(
    ("settings", "takes_effect", "status", "is_closed"),
    [
        ({"lost_answers": 1}, "now", None, True),
        ({"lost_requests": 1}, "never", None, True),
        ({"late_share": 1}, "late", None, True),
        ({"error_shares": {"503": 1}}, "never", 503, False),
        ({"error_shares": {"503": 1}, "errors_applied": 1}, "now", 503, False),
        ({"error_shares": {"400": 1}, "errors_applied": 1}, "never", 400, False),
    ],
)
def test_each_fault_says_when_it_takes_effect_and_what_is_answered(
    settings, takes_effect, status, is_closed
):
    fault = faults(**settings).draw(UPSERT, b"{}")

    assert fault.takes_effect == takes_effect
    assert (fault.answer and fault.answer.status) == status
    assert fault.is_closed is is_closed


def test_rules_hold_for_their_path_and_their_content():
    rule = {"path": ATTRIBUTE_DELETE, "contains": "ann@", "status": 403, "message": "No."}
    drawing = faults(failures=[rule])

    hit = drawing.draw(ATTRIBUTE_DELETE, b"ann@example.com").answer

    assert orjson.loads(hit.body) == {"success": False, "message": "No."}
    assert drawing.draw(UPSERT, b"ann@example.com").answer is None
    assert drawing.draw(ATTRIBUTE_DELETE, b"bob@example.com").answer is None
