"""Accepting: the one script that adds deliveries to a partition.

The producer uses it for events, the worker for repairs, ops for replays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from worker.contract.events import Header, encode_header
from worker.contract.keys import PartitionKeys, stream_name

SCRIPT: Final = (Path(__file__).parent / "accept.lua").read_text()
_POSITION_DIGITS: Final = 20
_KEYS_BEFORE_STREAMS: Final = 4


class NewDelivery(NamedTuple):
    """One delivery to add: where to, and its two fields.

    Attributes:
        profile: The packed text, see `events.encode_profile`.
        number: Of its event within a job's chunk, the same in every run of the job.
    """

    lane: str
    trigger: str
    header: Header
    profile: bytes
    number: int = 0


@dataclass(frozen=True, slots=True)
class AcceptCall:
    """Keys and arguments for one call of the script; whoever has a client runs it."""

    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the keys of the streams, in the order in which the script answers for them."""
        return self.keys[_KEYS_BEFORE_STREAMS:]


def accept_call(
    keys: PartitionKeys,
    deliveries: Sequence[NewDelivery],
    *,
    job: str = "",
    position: int | None = None,
) -> AcceptCall:
    """Return the call that adds these deliveries to one partition.

    Args:
        keys: Of the partition; every delivery's profile must belong to it.
        deliveries: In the order in which they should stand in their streams.
        job: Name of the job, which counts them, or "".
        position: Where in the job's source this chunk ends. Of a chunk behind the position that
            Redis knows nothing is added; of the chunk that ends there, the events whose numbers
            were not added by an earlier attempt.
    """
    names = list(dict.fromkeys(stream_name(new.lane, new.trigger) for new in deliveries))
    index = {name: str(number) for number, name in enumerate(names, start=1)}
    return AcceptCall(
        keys=(keys.counts, keys.streams, keys.bell, keys.jobs, *map(keys.stream, names)),
        args=(
            job,
            "" if position is None else str(position).zfill(_POSITION_DIGITS),
            len(names),
            *names,
            *_entries(deliveries, index),
        ),
    )


def _entries(deliveries: Iterable[NewDelivery], index: dict[str, str]) -> Iterable[str | bytes]:
    for new in deliveries:
        yield index[stream_name(new.lane, new.trigger)]
        yield encode_header(new.header)
        yield new.profile
        yield str(new.number)
