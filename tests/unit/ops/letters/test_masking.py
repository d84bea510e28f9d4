"""What of a letter may be printed."""

from ops.letters.masking import MASK, hidden, shown

LETTER = {
    "id": "insider.0.beef",
    "message": "templates/enter.jsonnet:12: no 'Ann' <ann@example.com>",
    "body": '{"users": [{"identifiers": {"email": "ann@example.com"}, "age": null}]}',
    "answer": '{"error": "ann@example.com is +15551234567"}',
    "profile": {"email": "ann@example.com", "segment_events": [{"slug": "vip"}]},
    "header": [1, "00", "vip"],
}


def test_names_and_the_segment_event_stay():
    found = shown(LETTER, reveal=False)

    assert found["profile"] == {"email": MASK, "segment_events": [{"slug": "vip"}]}
    assert found["body"] == {"users": [{"identifiers": {"email": MASK}, "age": None}]}
    assert "example.com" not in str(found)
    assert "5551234567" not in str(found)
    assert "header" not in found


def test_revealed_everything_is_shown():
    assert shown(LETTER, reveal=True)["profile"] == LETTER["profile"]


def test_long_lists_are_cut():
    assert hidden(list(range(50))) == [MASK] * 20


def test_a_body_that_is_no_json_is_hidden_whole():
    assert shown(LETTER | {"body": "ann@example.com"}, reveal=False)["body"] == MASK
