"""The numbers of partitions, and which of them is a profile's."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.contract.keys import digest_of, partition_of
from segrelay.worker.contract.partitions import Numbering

COUNTS = st.lists(st.integers(1, 1_024), min_size=1, max_size=5).map(tuple)


@given(COUNTS, st.integers(0, 1_024))
def test_it_is_read_as_it_was_written(counts, target):
    numbering = Numbering(counts, target)

    assert Numbering.loads(numbering.dumps()) == numbering
    assert Numbering.loads(numbering.dumps().encode()) == numbering


@given(COUNTS)
def test_a_number_is_never_given_again(counts):
    given = [
        number
        for length in range(1, len(counts) + 1)
        for number in Numbering(counts[:length]).numbers
    ]

    assert given == list(range(sum(counts)))


@given(COUNTS, st.text(min_size=1))
def test_a_profile_is_in_one_of_the_present_partitions(counts, text):
    numbering, key = Numbering(counts), f"email:{text}"

    number = numbering.of(key)

    assert number in numbering.numbers
    assert numbering.of(key, digest_of(key)) == number
    if len(counts) > 1:
        assert numbering.of_digest(digest_of(key)) == number


def test_at_first_a_checksum_of_the_key_decides_which_the_ledger_does_not_tell():
    assert Numbering((16,)).of("email:a@example.com") == partition_of("email:a@example.com", 16)
    with pytest.raises(ValueError, match="tells no partition"):
        Numbering((16,)).of_digest(digest_of("email:a@example.com"))


def test_what_follows_begins_behind_what_is():
    numbering = Numbering.loads("16,5>64")

    assert numbering.numbers == range(16, 21)
    assert numbering.following == Numbering((16, 5, 64))
    assert numbering.following.numbers == range(21, 85)
    assert numbering.settled == Numbering((16, 5))


def test_profiles_spread_evenly():
    numbering = Numbering((16, 64))

    shares = Counter(numbering.of(f"email:p{n}@example.com") for n in range(20_000))

    assert len(shares) == 64
    assert max(shares.values()) < 1.35 * 20_000 / 64
