"""Whether a request may still be written, and what a vanished worker's requests leave in doubt."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from segrelay.worker.batch.batch import Request
from segrelay.worker.batch.partition import Intent
from segrelay.worker.batch.read import ledgers_after
from segrelay.worker.batch.send import may_write
from segrelay.worker.contract.ledger import Item, Record, pack
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.gate import Closed, SendTime
from tests.ledger_keys import ledger_event


def booked(at_ms: float, *, probe: bool = False) -> SendTime:
    return SendTime(at_ms, at_ms, {}, probe=probe, incident=0)


FULL = Closed("ok", "rate", None)


@pytest.mark.parametrize(
    ("intent_ms", "now_ms", "stops", "books", "may", "given_back"),
    [
        (1_100, 1_200, False, [], True, 0),
        (1_100, 1_900, False, [booked(1_800)], True, 1),
        (1_900, 1_200, False, [booked(1_900)], True, 1),
        (1_100, 1_900, False, [booked(100), booked(1_800)], True, 2),
        (1_100, 1_900, False, [booked(1_800, probe=True)], False, 2),
        (1_100, 1_900, False, [FULL], False, 1),
        (1_100, 1_900, True, [booked(1_800)], False, 2),
    ],
    ids=["in time", "late", "late by Redis' clock", "late twice", "a probe", "closed", "stops"],
)
def test_a_request_whose_send_time_has_passed_is_written_in_another(
    *, intent_ms: int, now_ms: int, stops: bool, books: list[Any], may: bool, given_back: int
) -> None:
    left, cancelled = list(books), []

    async def book(**_: Any) -> Any:
        return left.pop(0)

    async def cancel(send_time: SendTime) -> None:
        cancelled.append(send_time)

    drain = SimpleNamespace(gate=SimpleNamespace(book=book, cancel=cancel), is_cut=False)
    drain.is_over, drain.stop = stops, SimpleNamespace(is_told=stops)
    batch: Any = SimpleNamespace(drain=drain, kind="live", state=SimpleNamespace())
    batch.state.now_ms = lambda: now_ms
    several: Any = ((SimpleNamespace(),), (SimpleNamespace(),))
    request = Request(several, "", b"", 2, ("enter",))
    request.send_time, request.is_booked, request.intent_ms = booked(1_000), True, intent_ms

    assert asyncio.run(may_write(batch, request)) is may
    assert (request.may_be_out, len(cancelled), left) == (may, given_back, [])


def test_a_vanished_request_may_have_told_the_whole_list_and_what_was_replayed() -> None:
    gone, ann = b"digest0001", b"digest0002"
    rows = [
        (f"live|enter|{n}-0", ledger_event(5, Direction.ENTER, 2, digest=digest, replays=3).header)
        for n, digest in enumerate((gone, ann))
    ]
    numbers: Any = SimpleNamespace(audience=lambda _: 7, trigger=lambda _: 2)
    texts = {gone: b"\xffdamaged", ann: pack(Record())}

    after = ledgers_after([Intent("i", tuple(rows))], texts, numbers)

    assert list(after) == [ann]
    assert after[ann].items == {
        (7, 2): Item(Direction.ENTER, tried_us=5, tried_replays=3),
        (0, 0): Item(Direction.CHANGE, 5),
    }
