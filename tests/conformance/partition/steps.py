"""What tests of a partition do again and again."""

from typing import Any

from segrelay.worker.batch.partition import DeadLetter, Delivery, Settlement
from tests.conformance.partition.conftest import Bench

VIP = "live|vip-enter"
DEAD_LETTER = DeadLetter(
    "insider.0.1f", "c4", b'{"reason":"refused"}', b'{"id":"insider.0.1f",\n"a":1}'
)


def take(bench: Bench, partition: Any = None) -> Any:
    holding = bench.run((partition or bench.one).take())
    assert holding is not None
    return holding


def held_with(bench: Bench, *people: str) -> list[Delivery]:
    bench.accept(*people)
    take(bench)
    return bench.deliveries()


def settle(bench: Bench, settlement: Settlement, partition: Any = None) -> int:
    return bench.run((partition or bench.one).settle(settlement))
