"""Sending: the next batch is drafted ahead, and a Redis that is away costs none."""

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
    """A publisher that remembers what it wrote, of a Redis that is away once at some batches."""

    away_at: set[int]
    done: list[int] = field(default_factory=list)

    def why_full(self, _lane):
        return ""

    def draft(self, batch, form, _options):
        assert form is None
        [payload] = batch
        if payload.line in self.away_at:
            self.away_at.remove(payload.line)
            raise RedisUnavailable("Redis is away.")
        return payload.line

    def lay_out(self, draft):
        return draft

    def write_draft(self, draft):
        self.done.append(draft)
        return Published(accepted=1)


@pytest.mark.parametrize("away_at", [set(), {1}, {2}, {3}])
def test_a_redis_that_is_away_while_a_batch_is_drafted_ahead_costs_none(away_at):
    publisher = Recorder(away_at)
    batches = [[Payload(TEXT, orjson.loads(TEXT), number)] for number in (1, 2, 3)]
    sending = Sending(publisher, "-", AS_USUAL, Deadline(), Interruption(), SECONDS)

    sending.run(iter(batches), lambda _: None)

    assert sending.published.accepted == 3
    assert publisher.done == [1, 2, 3]
