"""Sources that a person names."""

import os

import pytest

from segrelay.producer.events.payloads import Payload
from segrelay.producer.sources.files import PipeLines, batches, opened


def test_the_digest_and_the_rows_of_a_file_come_from_one_opening(tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b'{"first": 1}\n')
    with opened(str(path)) as alone:
        expected = alone.digest("salt")

    with opened(str(path)) as source:
        (tmp_path / "new").write_bytes(b'{"second": 2}\n')
        (tmp_path / "new").replace(path)
        digest = source.digest("salt")
        line = source.lines.readline(1_000)

    assert (digest, line) == (expected, b'{"first": 1}\n')


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


def test_what_was_read_is_yielded_before_reading_stops():
    payloads = [Payload(b"{}", {}, line) for line in range(1, 10)]
    read = []

    def reading():
        for payload in payloads:
            read.append(payload)
            yield payload

    (batch,) = batches(reading(), stops=lambda: len(read) == 3)

    assert batch == payloads[:3]
    assert read == payloads[:3]
