"""The mark of a member that a sync knows, as Redis keeps it."""

import pytest

from segrelay.producer.sync.store import NOT_KNOWN, Mark


@pytest.mark.parametrize(
    ("mark", "size"),
    [
        (Mark(1), 2),
        (Mark(1, b"1a"), 4),
        (Mark(127, b"beef", b"00ff00ff00ff"), 10),
        (Mark(128, b"beef"), 5),
        (Mark(2_000_000, NOT_KNOWN, b"0123456789ab", 1_790_000_000_123_456), 17),
        (Mark(3, b"1a", NOT_KNOWN, 1), 11),
        # That of somebody whom no run saw is a text.
        (Mark(0, b"1790000000123"), len("0 1790000000123 -")),
    ],
)
def test_a_mark_survives_being_packed_and_is_short(mark, size):
    text = mark.dumps()

    assert (Mark.loads(text), len(text)) == (mark, size)
