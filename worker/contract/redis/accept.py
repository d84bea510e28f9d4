"""Accepting: the one script that adds deliveries to a partition.

The producer uses it for events, the worker for repairs, ops for replays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from segrelay.worker.contract.events import Header, encode_header
from segrelay.worker.contract.keys import PartitionKeys, stream_name
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script

SCRIPT: Final = load_script("accept")
_POSITION_DIGITS: Final = 20
ENTRANT_DAYS: Final = 30
"""The days after which a sync forgets a name of whom nothing was delivered."""
RENUMBERED: Final = -3
"""The answer of a partition that nobody reads any more: the number of partitions has changed."""


class NewDelivery(NamedTuple):
    """A delivery to add: its lane and trigger, and the two fields of its entry.

    Attributes:
        profile: The packed text, see `events.pack_profile`.
        number: Of its event within a job's chunk, the same in every run of the job.
    """

    lane: str
    trigger: str
    header: Header
    profile: bytes
    number: int = 0


class Member(NamedTuple):
    """A person that a sync knows as a member, with the mark that was found and the new one.

    Deliveries name a member by their `number`.

    Attributes:
        key: The profile's key.
        found: Its mark as it was found; b"" = it was not known.
        becomes: Its mark from now on; b"" = it is forgotten.
    """

    key: str
    found: bytes
    becomes: bytes


@dataclass(frozen=True, slots=True)
class Roll:
    """The changes that a sync's step makes to the members of one partition.

    Args:
        sync: The sync's name.
        token: Of the step.
        members: Their numbers begin with 1.
    """

    sync: str
    token: str
    members: Sequence[Member]


class Entrant(NamedTuple):
    """Somebody of whom an entrance is accepted, whose name a sync will need.

    Attributes:
        sync: The sync's name.
        key: The profile's key.
        accepted_ms: By Redis' clock.
    """

    sync: str
    key: str
    accepted_ms: int

    @property
    def mark(self) -> bytes:
        """Return the mark of somebody whom no run has seen; a run's own begins with its number."""
        return b"0 %d -" % self.accepted_ms


FIRST_STREAM: Final = 5
"""The index of the first stream's key; the script answers in the order of the streams' keys."""


def accept_call(
    keys: PartitionKeys,
    deliveries: Sequence[NewDelivery],
    *,
    job: str = "",
    position: int | None = None,
    epoch: int = 0,
    roll: Roll | None = None,
    entrants: Collection[Entrant] = (),
) -> ScriptCall:
    """Return the call that adds these deliveries to one partition.

    Args:
        keys: Of the partition; every delivery's profile must belong to it.
        deliveries: In the order in which they should stand in their streams.
        job: Name of the job, which counts them, or "".
        position: The position in the job's source at which this chunk ends. Of a chunk behind the
            position that Redis knows nothing is added; of the chunk that ends there, the events
            whose numbers were not added by an earlier attempt.
        epoch: Of the job's reader; if the partition is closed to it, nothing is added. 0 = what
            adds them is no reader, and nobody can stop it.
        roll: Members that change with these deliveries, each only if it is as it was found; of the
            deliveries, those are added whose member changes. A name may have come since.
        entrants: People whose names a sync keeps from now on, unless one of its runs saw them.
    """
    pairs = list(dict.fromkeys(new[:2] for new in deliveries))
    index = {pair: str(number) for number, pair in enumerate(pairs, start=1)}
    names = [stream_name(*pair) for pair in pairs]
    streams = tuple(map(keys.stream, names))
    of_roll = (keys.members(roll.sync), keys.synctokens) if roll else ()
    syncs = list(dict.fromkeys(entrant.sync for entrant in entrants))
    of_reader = (keys.jobs,) if epoch else ()
    return ScriptCall(
        keys=(
            *(keys.counts, keys.streams, keys.wakeup, keys.jobs, keys.lease),
            *(*streams, *of_roll, *map(keys.members, syncs), *of_reader),
        ),
        args=(
            job,
            "" if position is None else str(position).zfill(_POSITION_DIGITS),
            len(names),
            *names,
            *_roll_arguments(roll),
            len(entrants),
            *_entrant_arguments(entrants, syncs, FIRST_STREAM + len(names) + len(of_roll)),
            *_entries(deliveries, index),
            min((new.header.accepted_ms for new in deliveries), default=0),
            epoch or "",
        ),
    )


def _roll_arguments(roll: Roll | None) -> Iterable[str | bytes | int]:
    if roll is None:
        return ("",)
    members = (part for member in roll.members for part in member)
    return (roll.sync, roll.token, len(roll.members), *members)


def _entrant_arguments(
    entrants: Iterable[Entrant], syncs: Sequence[str], keys_before: int
) -> Iterable[str | bytes | int]:
    number = {sync: keys_before + position for position, sync in enumerate(syncs, start=1)}
    return (part for one in entrants for part in (number[one.sync], one.key, one.mark))


def _entries(
    deliveries: Sequence[NewDelivery], index: dict[tuple[str, str], str]
) -> list[str | bytes]:
    args: list[str | bytes] = [
        " ".join([index[new[:2]] for new in deliveries]),
        " ".join([str(new.number) for new in deliveries]),
    ]
    for _, _, header, profile, _ in deliveries:
        args += (encode_header(header), profile)
    return args
