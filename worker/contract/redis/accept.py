"""Accepting: the script by which the producer adds deliveries, and the worker repairs.

Dead letters go back to their streams by `ops/state/lua/leave.lua`; both include `_add.lua`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from segrelay.worker.contract.events import Header, encode_headers
from segrelay.worker.contract.keys import PartitionKeys, stream_name
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    first_keys,
    load_script,
    named_key,
    script_call,
)

SCRIPT: Final = load_script("accept")
_POSITION_DIGITS: Final = 20
ENTRANT_DAYS: Final = 30
"""The days after which a sync forgets a name of whom nothing was delivered."""
OTHERWISE_SEALED: Final = -3
"""The answer of a partition whose Redis has another secret than the caller, or has lost it."""


class NewDelivery(NamedTuple):
    """A delivery to add: its lane and trigger, and the two fields of its entry.

    Attributes:
        profile: The packed profile, see `events.pack_profile`.
        number: The number of its event within a job's chunk, the same in every run of the job.
    """

    lane: str
    trigger: str
    header: Header
    profile: bytes
    number: int = 0


_EMAIL: Final = "email:"


def field_of_member(key: str) -> str:
    """Return the field of a hash of members in which somebody is, by the key of the profile.

    Most keys begin with `email:`, which is left out; others have a zero character before them.
    """
    is_email = key.startswith(_EMAIL) and key[len(_EMAIL) :][:1] not in {"", "\0"}
    return PROTECTION.seal_name(key.removeprefix(_EMAIL) if is_email else f"\0{key}")


def key_of_member(field: str) -> str:
    """Return the key of the profile from its field in a hash of members."""
    name = PROTECTION.unseal_name(field)
    return name[1:] if name.startswith("\0") else _EMAIL + name


class Member(NamedTuple):
    """A person that a sync knows as a member, with the mark that was found and the new one.

    Deliveries name a member by their `number`.

    Attributes:
        key: The profile's key.
        found: The mark as it was found; b"" = the person was not known.
        becomes: The mark from now on; b"" = the member is forgotten.
    """

    key: str
    found: bytes
    becomes: bytes


@dataclass(frozen=True, slots=True)
class Roll:
    """The changes that a sync's step makes to the members of one partition.

    Args:
        sync: The sync's name.
        token: The token of the step.
        members: The changed members, whose numbers count from 1.
    """

    sync: str
    token: str
    members: Sequence[Member]


class WakeUpText(NamedTuple):
    """A wake-up for the queue of a broker that is the same Redis as the deliveries'.

    Attributes:
        queue: The name of the queue.
        text: The message, as Celery reads it.
    """

    queue: str
    text: bytes


class Entrant(NamedTuple):
    """Somebody of whom an entrance is accepted, whose name a sync will need.

    Attributes:
        sync: The sync's name.
        key: The profile's key.
        accepted_ms: The time at which it was accepted, by Redis' clock.
    """

    sync: str
    key: str
    accepted_ms: int

    @property
    def mark(self) -> bytes:
        """Return the mark of somebody whom no run has seen; a run's own begins with its number."""
        return b"0 %d" % self.accepted_ms


def key_of_jobs(call: ScriptCall) -> str | bytes:
    """Return the key of a call in which the script keeps the positions of jobs."""
    return named_key(SCRIPT, call, "jobs")


def streams_of(call: ScriptCall) -> Sequence[str | bytes]:
    """Return the keys of a call's streams, in the order in which the script answers."""
    return first_keys(SCRIPT, call)


def accept_call(
    keys: PartitionKeys,
    deliveries: Sequence[NewDelivery],
    *,
    job: str = "",
    source: str = "",
    position: int | None = None,
    epoch: int = 0,
    roll: Roll | None = None,
    entrants: Collection[Entrant] = (),
    claimed: bytes | None = None,
    wakeup: WakeUpText | None = None,
) -> ScriptCall:
    """Return the call that adds these deliveries to one partition.

    Args:
        keys: The keys of the partition, to which every delivery's profile must belong.
        deliveries: The deliveries, in the order in which they should stand in their streams.
        job: The name of the job, which counts them; "" = none.
        source: The source whose positions are kept apart from those of jobs; "" = none.
        position: The position in the job's source at which this chunk ends. Of a chunk behind the
            position that Redis knows nothing is added; of the chunk that ends there, the events
            whose numbers were not added by an earlier attempt.
        epoch: The epoch of the job's reader; if the partition is closed to it, nothing is added. 0
            = no reader adds them, and nobody can stop it.
        roll: The members that change with these deliveries, each only if it is as it was found; of
            the deliveries, those are added whose member changes. A name may have come since.
        entrants: The people whose names a sync keeps from now on, unless one of its runs saw them.
        claimed: The id of the secret with which the digests were made, since Redis was claimed:
            where it has another one by now, or has lost it, nothing is added; b"" = it was open.
            None = the caller holds the lease, which would be gone as well.
        wakeup: The wake-up that is left in its queue if nobody was woken yet; None = the caller
            sends it.
    """
    index: dict[tuple[str, str], str] = {}
    streams: list[str] = []
    for lane, trigger, _, _, _ in deliveries:
        pair = (lane, trigger)
        if pair not in index:
            index[pair] = str(len(index) + 1)
        streams.append(index[pair])
    syncs = list(dict.fromkeys(entrant.sync for entrant in entrants))
    number = {sync: at for at, sync in enumerate(syncs, start=1)}
    members = roll.members if roll else ()
    return script_call(
        SCRIPT,
        keys,
        jobs=f"{keys.jobs}:{source}" if source else keys.jobs,
        epochs=keys.jobs,
        stream=[keys.stream(stream_name(*pair)) for pair in index],
        members=[keys.members(roll.sync)] if roll else (),
        tokens=[keys.synctokens] if roll else (),
        queue=[wakeup.queue] if wakeup else (),
        named=[keys.members(sync) for sync in syncs],
        job=job,
        position="" if position is None else str(position).zfill(_POSITION_DIGITS),
        sync=roll.sync if roll else "",
        token=roll.token if roll else "",
        accepted_ms=min([new.header.accepted_ms for new in deliveries], default=0),
        epoch=epoch or "",
        secret=(PROTECTION.secret_id if claimed is None else claimed).hex(),
        claims=int(bool(claimed)),
        message=wakeup.text if wakeup else b"",
        entry_streams=" ".join(streams),
        entry_numbers=" ".join([str(new.number) for new in deliveries]),
        tag=keys.tag,
        changes_field=[field_of_member(member.key) for member in members],
        changes_was=[member.found for member in members],
        changes_becomes=[member.becomes for member in members],
        names_known=[number[one.sync] for one in entrants],
        names_field=[field_of_member(one.key) for one in entrants],
        names_value=[one.mark for one in entrants],
        entries_header=encode_headers([new.header for new in deliveries]),
        entries_profile=_profiles(deliveries),
    )


def _profiles(deliveries: Sequence[NewDelivery]) -> list[bytes]:
    if not PROTECTION:
        return [new.profile for new in deliveries]
    return [PROTECTION.seal(new.profile, new.header.digest) for new in deliveries]
