"""What of a dead letter may be printed."""

import pytest

from segrelay.ops.dead_letters.commands import shown
from segrelay.worker.contract.printable import MASK, hidden, public_only

DEAD_LETTER = {
    "id": "insider.0.beef",
    "message": "templates/enter.jsonnet:12: no 'Ann' <ann@example.com>",
    "body": '{"users": [{"identifiers": {"email": "ann@example.com"}, "age": null}]}',
    "answer": '{"error": "ann@example.com is +15551234567"}',
    "profile": {"email": "ann@example.com", "segment_events": [{"slug": "vip"}]},
    "header": [1, "00", "vip"],
}


def test_names_and_the_segment_event_stay():
    found = shown(DEAD_LETTER, reveal=False)

    assert found["profile"] == {"email": MASK, "segment_events": [{"slug": "vip"}]}
    assert found["body"] == {"users": [{"identifiers": {"email": MASK}, "age": None}]}
    assert "example.com" not in str(found)
    assert "5551234567" not in str(found)
    assert "header" not in found


def test_revealed_everything_is_shown():
    assert shown(DEAD_LETTER, reveal=True)["profile"] == DEAD_LETTER["profile"]


def test_long_lists_are_cut():
    assert hidden(list(range(50))) == [MASK] * 20


def test_a_body_that_is_no_json_is_hidden_whole():
    assert shown(DEAD_LETTER | {"body": "ann@example.com"}, reveal=False)["body"] == MASK


GOOD = {"slug": "vip", "id": "a1", "event": "enter", "enter": "2026-11-01T10:00:00.5+01:00"}


@pytest.mark.parametrize(
    "wrong",
    [
        "Ann <ann@example.com>",
        {"enter": "ann@example.com"},
        {"exit": "+15551234567"},
        {"slug": "Ann Example"},
        {"event": "ann"},
        {"name": "Ann"},
        {"enter": {"ann": "ann@example.com"}},
    ],
)
def test_what_stands_in_the_place_of_a_segment_event_is_masked(wrong):
    assert public_only([GOOD, wrong] if isinstance(wrong, dict) else wrong) == (
        [GOOD, hidden(wrong)] if isinstance(wrong, dict) else MASK
    )
