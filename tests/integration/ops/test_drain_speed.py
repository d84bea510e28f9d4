"""A guard: the processor time of a drain, against a piece of work that is always the same.

Both are measured in one process and one run, so a slow or a busy machine changes neither verdict.
What Redis and the sandbox use is not counted: they are other processes.
"""

import gc
import json
import random
import time
from contextlib import closing

from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.batch.partition import Stop
from segrelay.worker.node.runtime import Runtime
from tests.integration.ops.relay import EXIT

ROUNDS = 4
EVENTS = 1_500
MOST_UNITS_PER_EVENT = 15.5
"""An event took 8.6 to 8.9 units when this was written. If the drain became much faster, lower it;
if it became slower for a good reason, say so in `tools/bench/results.md` and raise it."""


def unit_of_work() -> None:
    """Read, change and write a small document: what Python takes for it is the measure."""
    document = {f"field_{number}": [number, str(number), {"at": number}] for number in range(12)}
    again = json.loads(json.dumps(document))
    assert {name: len(parts) for name, parts in again.items()}.keys() == document.keys()


def seconds_of(work) -> float:
    gc.collect()
    begun = time.process_time()
    work()
    return time.process_time() - begun


def test_an_event_takes_less_than_twice_the_processor_time_that_it_took(relay):
    rng = random.Random(1)
    relay.configure(EXIT)
    rows = list(payloads(happenings(rng, events=ROUNDS * EVENTS, people=ROUNDS * EVENTS)))
    units, events = [], []

    with closing(Runtime(relay.settings)) as runtime:

        def drain() -> None:
            # On a busy machine a slice may be over before its partition is empty.
            for _ in range(20):
                for partition in range(relay.settings.redis.partitions):
                    runtime.drain("insider", partition, Stop())
                if not relay.streams():
                    return

        def work() -> None:
            for _ in range(2_000):
                unit_of_work()

        for number in range(ROUNDS):
            relay.publish(*map(json.loads, rows[number * EVENTS : (number + 1) * EVENTS]))
            units.append(seconds_of(work) / 2_000)
            events.append(seconds_of(drain) / EVENTS)
            assert relay.streams() == set()

    assert min(events) / min(units) < MOST_UNITS_PER_EVENT
