"""The cost of recording outcomes for a drain: the same drains with and without, in one run.

One process drains, as for `tapping`, and nothing writes files meanwhile.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from random import Random
from typing import Any, Final

from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.contract.settings import OutcomesSettings
from segrelay.worker.node.runtime import runtime_for
from tools.bench.rigs import bench_rig
from tools.bench.tapping import drained, summary

_ROUNDS: Final = 8
_PEOPLE: Final = 1_000_000
RECORDED: Final[dict[str, OutcomesSettings | None]] = {
    "nothing": None,
    "digests": OutcomesSettings(),
    "an_email": OutcomesSettings(fields=("email",)),
}


def drain_recorded(*, events: int) -> dict[str, Any]:
    """Measure drains that record nothing, and more, one after the other in a rotating order.

    Args:
        events: Number of events of each drain.
    """
    chance = Random(1)  # noqa: S311 - invented people
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RECORDED}
    names = list(RECORDED)
    with bench_rig() as rig, ExitStack() as stack:
        publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        runtimes = {
            name: stack.enter_context(
                closing(runtime_for(rig.settings.model_copy(update={"outcomes": wanted})))
            )
            for name, wanted in RECORDED.items()
        }
        for number in range(-1, _ROUNDS):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                happened = happenings(chance, events=events, people=_PEOPLE)
                publisher.publish(list(payloads(happened)))
                measured = drained(rig, runtimes[name], events)
                if number >= 0:  # the first round warms up
                    found[name].append(measured)
    return {name: summary(rounds, found["nothing"]) for name, rounds in found.items()}
