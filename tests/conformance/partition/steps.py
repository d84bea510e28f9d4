"""What tests of a partition do again and again."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.words import Death, Skip
from tests.conformance.partition.conftest import Bench

VIP = "live|vip-enter"
SAMPLE, LETTER = b'{"reason":"refused"}', b'{"id":"insider.0.1f",\n"a":1}'
DEAD_LETTER = b"\n".join((b"insider.0.1f", b"c4", SAMPLE, LETTER))


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


def settled(
    delivery: Delivery,
    reason: Skip | Death | None = None,
    *,
    tells: bool = False,
    dead_letter: bytes = b"",
    remark: str = "",
) -> Delivery:
    """Return a delivery as it was read, with an outcome."""
    fresh = replace(delivery)
    fresh.reason, fresh.tells = reason, tells
    fresh.dead_letter, fresh.remark = dead_letter, remark
    fresh.loaded = SimpleNamespace(template=SimpleNamespace(content_hash="f00d"))  # type: ignore[assignment]
    return fresh
