"""The arguments of the scripts that settle and replace deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Final

import orjson

from worker.batch.partition import Replacement, Settled, Settlement
from worker.contract.events import encode_header
from worker.contract.keys import PartitionKeys, stream_name
from worker.core.backoff import Setback, Wait

_FEW_ENTRIES: Final = 2
_FEW_BYTES: Final = 4_000
"""The most entries and bytes of a stream that are read again to see whether all of it may go.

Reading costs time by their bytes: beyond two entries, removing them by name costs less.
"""


def settle_call(
    k: PartitionKeys, what: Settlement, token: str, retention_ms: int, ended: Container[str] = ()
) -> tuple[list[str | bytes], list[str | bytes | int]]:
    """Return keys and arguments of the script that settles.

    Args:
        k: Of the partition.
        what: What is settled.
        token: Of the lease.
        retention_ms: How long a ledger that may lapse is kept.
        ended: Streams that were read to their end, so that nothing else may be in them.
    """
    setbacks = [(*place.rpartition("|")[::2], value) for place, value in what.setbacks.items()]
    named = (*(s.delivery.stream for s in what.settled), *(stream for stream, _, _ in setbacks))
    streams = list(dict.fromkeys(named))
    stream_index = {name: number for number, name in enumerate(streams, start=1)}
    ledgers = {digest: number for number, digest in enumerate(what.ledgers, start=1)}
    texts = what.ledgers.values()
    keys: list[str | bytes] = [
        k.lease, k.counts, k.notes, k.open, k.letters, k.lettertimes, k.causes, k.retry, k.aside,
        k.streams, k.history, k.reached, k.who, k.rendering, k.responses, k.responseslost,
        k.jobtimes, k.orphans, *map(k.stream, streams), *map(k.ledger, ledgers),
    ]  # fmt: skip
    args: list[str | bytes | int] = [
        token, what.note_id, round(what.open_seconds * 1000), retention_ms, len(streams), *streams,
        " ".join([str(-len(text) if lasts else len(text)) for text, lasts in texts]),
        b"".join([text for text, _ in texts]),
    ]  # fmt: skip
    groups: dict[tuple[str, str | None], list[Settled]] = {}
    for s in what.settled:
        groups.setdefault((s.delivery.stream, s.reason), []).append(s)
    groups_of = Counter(stream for stream, _ in groups)
    args.append(len(groups))
    for (stream, _), group in groups.items():
        may_be_all = stream in ended and groups_of[stream] == 1 and _are_few(group)
        args += (stream_index[stream], int(may_be_all))
        args += (group[0].counted_as, *_packed(group, ledgers))
    _put_list(args, [(trigger, _wait(wait)) for trigger, wait in what.waits.items()])
    _put_list(
        args,
        [(stream_index[stream], entry_id, _setback(value)) for stream, entry_id, value in setbacks],
    )
    _put_list(args, list(what.counts.items()))
    _put_list(args, [(line,) for line in what.history])
    _put_list(args, list(what.reached.items()))
    _put_list(args, [(record,) for record in what.responses])
    return keys, args


def carry_call(
    k: PartitionKeys, replacements: Sequence[Replacement]
) -> tuple[list[str | bytes], list[str | bytes | int]]:
    """Return keys and arguments of the script that replaces deliveries."""
    names = dict.fromkeys(
        name
        for old, new in replacements
        for name in (old.stream, *(stream_name(each.lane, each.trigger) for each in new))
    )
    index = {name: number for number, name in enumerate(names, start=1)}
    keys: list[str | bytes] = [
        k.lease, k.counts, k.streams, k.aside, k.orphans, *map(k.stream, names),
    ]  # fmt: skip
    args: list[str | bytes | int] = [len(names), *names]
    for old, new in replacements:
        args += (index[old.stream], old.entry_id, len(new))
        for each in new:
            stream = stream_name(each.lane, each.trigger)
            args += (index[stream], encode_header(each.header), each.profile)
    return keys, args


def _are_few(group: Sequence[Settled]) -> bool:
    return len(group) <= _FEW_ENTRIES and sum(s.delivery.size for s in group) <= _FEW_BYTES


def _packed(group: Sequence[Settled], ledgers: Mapping[bytes, int]) -> list[str | bytes | int]:
    """Return the arguments that describe a group of settled deliveries to the script."""
    letters = [s.letter.dumps() for s in group if s.letter]
    return [
        " ".join(s.delivery.entry_id for s in group),
        " ".join(str(ledgers[s.delivery.header.digest]) if s.tells else "0" for s in group),
        len(letters),
        *letters,
    ]


def _put_list(args: list[str | bytes | int], rows: Sequence[tuple[str | bytes | int, ...]]) -> None:
    args.append(len(rows))
    for row in rows:
        args += row


def _wait(wait: Wait | None) -> bytes:
    told = wait and [wait.attempts, wait.not_before_ms, wait.successes, wait.reason]
    return orjson.dumps(told) if told else b""


def _setback(setback: Setback) -> bytes:
    return orjson.dumps(
        [
            setback.width,
            setback.failures,
            setback.tries_alone,
            setback.not_before_ms,
            setback.successes,
            *([setback.refusal] if setback.refusal else []),
        ]
    )
