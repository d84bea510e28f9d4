"""Sending: the next batch is drafted while one is written."""

import threading
from dataclasses import dataclass, field

import orjson
import pytest

from segrelay.ops.send import Deadline, Sending
from segrelay.ops.terminal.serving import Interruption
from segrelay.producer.events.payloads import Payload
from segrelay.producer.publishing.published import AS_USUAL, Published
from segrelay.worker.errors import RedisUnavailable

SECONDS = 10
TEXT = b'{"segment_events": []}'


@dataclass
class Recorder:
    """A publisher that says what it was asked to do, in order."""

    away_at: set[int] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    drafted: dict[int, threading.Event] = field(
        default_factory=lambda: {n: threading.Event() for n in (1, 2, 3)}
    )
    waits_for: dict[int, int] = field(default_factory=dict)

    def why_full(self, _lane):
        return ""

    def draft(self, batch, form, _options):
        assert form is None
        [payload] = batch
        number = payload.line
        if number in self.away_at:
            self.away_at.remove(number)
            self.done.append(f"away at {number}")
            self.drafted[number].set()
            raise RedisUnavailable("Redis is away.")
        self.done.append(f"draft {number}")
        self.drafted[number].set()
        return number

    def lay_out(self, draft):
        return draft

    def write_draft(self, draft):
        if draft in self.waits_for:
            assert self.drafted[self.waits_for[draft]].wait(SECONDS)
        self.done.append(f"write {draft}")
        return Published(accepted=1)


def run(publisher: Recorder) -> Published:
    batches = [[Payload(TEXT, orjson.loads(TEXT), number)] for number in (1, 2, 3)]
    sending = Sending(publisher, "-", AS_USUAL, Deadline(), Interruption(), SECONDS)  # type: ignore[arg-type]
    sending.run(iter(batches), lambda _: None)
    return sending.published


def test_the_next_batch_is_drafted_while_one_is_written():
    publisher = Recorder(waits_for={1: 2, 2: 3})

    published = run(publisher)

    assert published.accepted == 3
    assert publisher.done == ["draft 1", "draft 2", "write 1", "draft 3", "write 2", "write 3"]


@pytest.mark.parametrize("away_at", [1, 2, 3])
def test_a_redis_that_is_away_while_a_batch_is_drafted_ahead_costs_none(away_at):
    publisher = Recorder(away_at={away_at})

    published = run(publisher)

    assert published.accepted == 3
    assert [line for line in publisher.done if "write" in line] == ["write 1", "write 2", "write 3"]
