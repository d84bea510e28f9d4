"""Batches of what is read: from a pipe that pauses, in whole thousands, and read again."""

import os
from dataclasses import replace

import pytest

from segrelay.producer.events.payloads import Payload, reread
from segrelay.producer.sources.blocks import BATCH_PAYLOADS, batches
from segrelay.producer.sources.opening import PipeLines


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_a_pipe_gives_its_lines_and_none_while_nothing_comes(pipe):
    reading, writing = pipe
    lines = PipeLines(reading, "-")

    os.write(writing, b'{"a": 1}\n{"b":')
    first, nothing = lines.readline(100), lines.readline(100)
    os.write(writing, b" 2}\n{rest")
    second = lines.readline(100)
    os.close(writing)

    assert (first, nothing, second) == (b'{"a": 1}\n', None, b'{"b": 2}\n')
    assert (lines.readline(3), lines.readline(100), lines.readline(100)) == (b"{re", b"st", b"")


@pytest.mark.parametrize(("is_live", "taken"), [(True, 3), (False, BATCH_PAYLOADS)])
def test_what_was_read_is_yielded_before_reading_stops(is_live, taken):
    payloads = [Payload(b"{}", {}, line) for line in range(1, BATCH_PAYLOADS + 10)]
    read = []

    def reading():
        for payload in payloads:
            read.append(payload)
            yield payload

    found = batches(reading(), is_live=is_live, stops=lambda: len(read) >= 3)
    (batch,) = map(list, found)

    assert batch == payloads[:taken]
    assert read == payloads[:taken]


def test_a_batch_ends_with_what_came_in_the_last_second_or_before_a_pause():
    payloads = [Payload(b"{}", {}, line) for line in range(1, 5)]

    def reading():
        yield None
        yield from payloads[:3]
        yield None
        yield None
        yield payloads[3]

    parts = map(list, batches(reading(), is_live=True))

    assert list(parts) == [payloads[:3], payloads[3:]]


def test_batches_of_a_source_are_whole_thousands_whether_values_are_kept_or_not():
    def sizes(drops):
        payloads = [Payload(b"[]", [{}] * (line % 3), line) for line in range(1, 2_501)]
        for batch in batches(iter(payloads)):
            found = []
            for payload in batch:
                found.append(payload.line)
                payload.value = None if drops else payload.value
            yield found

    kept = list(sizes(drops=False))

    assert [len(lines) for lines in kept] == [750, 750, 750, 250]
    assert list(sizes(drops=True)) == kept


def test_a_payload_whose_value_was_dropped_is_read_again_from_its_text():
    whole = Payload(b'{"a": 36893488147419103232}', {"a": 2**65}, 7, 2)
    dropped = replace(whole, value=None)
    broken = Payload(b"{", None, 8, error="Not JSON.")

    assert reread(dropped) == whole
    assert reread(whole) is whole
    assert reread(broken) is broken
    assert reread(Payload(b"null", None)).value is None
