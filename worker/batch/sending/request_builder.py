"""A request while it is packed: the parcels that it carries, and the room that is left in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.batch.parcel import Packed, Parcel
from worker.contract.ledger import Record
from worker.contract.words import Direction
from worker.core.compact import compact_json


@dataclass(slots=True)
class RequestBuilder:
    """Collects the user objects of one request.

    Args:
        most: The largest number of user objects.
        room: The bytes that are left for them.
        root: The root options of the request: those of its first parcel, corrected.
        names: Profiles and identifiers of the people of whom no further user object is added.
        is_full: No further person has room.
    """

    most: int
    room: int
    root: Mapping[str, Any] = field(default_factory=dict)
    names: set[bytes | str] = field(default_factory=set)
    is_full: bool = False
    _users: int = 0
    _packed: list[Packed] = field(default_factory=list)
    _at: dict[bytes, int] = field(default_factory=dict)
    _records: dict[bytes, Record] = field(default_factory=dict)
    _closed: set[bytes] = field(default_factory=set)

    def holds(self, parcel: Parcel) -> bool:
        """Say whether the parcel's profile has a user object in this request."""
        return parcel.digest in self._at

    def add(self, parcel: Parcel, users: tuple[bytes, ...]) -> bool:
        """Add a parcel's own user objects to the request; returns whether they fit.

        The first parcel always fits: it is known not to be too large alone. Its root options are
        the request's. A parcel of which something newer has made other root options untrue goes in
        a request of its own.
        """
        if self._packed and parcel.sent.root != self.root:
            # Whatever comes behind it of the same person stays behind it.
            self.names |= parcel.names
            return False
        self.root = parcel.sent.root
        size = sum(map(len, users)) + len(users)
        if self._packed and (self._users + len(users) > self.most or size > self.room):
            self.is_full = True
            return False
        self.room -= size
        self._users += len(users)
        self.is_full = self._users >= self.most
        self.names |= parcel.names
        self._at[parcel.digest] = len(self._packed)
        self._packed.append(Packed((parcel,), users))
        return True

    def record(self, parcel: Parcel, known: Record) -> Record:
        """Return the ledger record of a profile as if this request was delivered already."""
        record = self._records.get(parcel.digest)
        if record is None:
            (first,) = self._packed[self._at[parcel.digest]].members
            record = self._records[parcel.digest] = first.delivered_in(known)
        return record

    def join(self, parcel: Parcel, size: int, known: Record) -> bool:
        """Add a parcel to its profile's user object; return whether it fits."""
        at = self._at[parcel.digest]
        members = self._packed[at].members
        pair = sorted((members[0], parcel), key=_event_time)
        api, users = parcel.route.api, [user for p in pair for user in p.sent.users]
        if parcel.digest in self._closed:
            return False
        is_fitting = size <= self.room and parcel.sent.root == self.root
        if not is_fitting or api.unite(users, self.root) is None:
            # What comes behind it goes behind it: newer data first would make its own stale.
            self._closed.add(parcel.digest)
            return False
        self.room -= size
        self._packed[at] = Packed((*members, parcel), ())
        self._records[parcel.digest] = parcel.delivered_in(known)
        return True

    def packed(self) -> tuple[Packed, ...]:
        """Return the user objects; those that are shared are united now, oldest event first."""
        return tuple(self._united(each) if each.is_shared else each for each in self._packed)

    def _united(self, shared: Packed) -> Packed:
        members = sorted(shared.members, key=_event_time)
        users = [user for parcel in members for user in parcel.sent.users]
        united = members[0].route.api.unite(users, self.root)
        assert united is not None
        return Packed(tuple(members), (compact_json(united),))


def _event_time(parcel: Parcel) -> tuple[int, bool]:
    fact = parcel.fact
    return fact.time_us, fact.direction is Direction.EXIT
