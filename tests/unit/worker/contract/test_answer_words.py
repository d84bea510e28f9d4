"""What is kept of an answer: its status, known words, and the names of fields that were sent."""

import pytest

from segrelay.worker.contract.printable import COMMON, with_known_words

SENT = (
    b'{"users":[{"identifiers":{"email":"ann@example.com"},"attributes":'
    b'{"name":"Quetzalina","loyalty_level":"gold","status":"active"}}]}'
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("400: Existing record: Anna Schmidt of … Baker Street",
         "400: Existing record: … of …"),
        ("token YW5uYUBleGFtcGxlLmNvbQ is invalid", "token … is invalid"),
        ("name zoë is wrong", "name … is wrong"),
        ("users.….loyalty_level is wrong", "users.….loyalty_level is wrong"),
        ("shoe_size is wrong", "… is wrong"),
        ("status is not active", "status is not …"),
        ("400: no: Quetzalina of <email>", "400: no: … of <email>"),
        ("200: failedUpdates: INVALID_EMAIL", "200: failedUpdates: INVALID_EMAIL"),
        ("AnnLee is unknown", "… is unknown"),
        ("the plan is unknown", "the plan is unknown"),
        ("4711 is wrong", "… is wrong"),
        ("503", "503"),
        ("", ""),
    ],
)  # fmt: skip
def test_only_known_words_and_names_of_fields_stay(text, kept):
    assert with_known_words(text, {"plan"}, SENT) == kept


def test_the_common_words_are_plain_ones():
    assert all(word.isalpha() and word.islower() and word.isascii() for word in COMMON)
