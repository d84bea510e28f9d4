"""`DestinationIds`: the ids by which keys in Redis know destinations, and their names.

A destination gets an id when a process that names it starts for the first time, and keeps it. Keys
carry the id, so that a rename is one write of a name: who still knows the former name writes to the
same place. People see the name that a destination has today.

The id is the name that the destination had first, or, where another destination has that as its
id, the name with a number: `insider`, `insider~2`. A counter alone would begin anew in a Redis that
came back empty, and give an id to another destination than the one for which processes that run on
still write under it. So the same name gets the same id again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from segrelay.worker.contract.keys import PartitionKeys

_UNKNOWN: Final = "~"
"""Behind a name that is the id of another destination: no id ends like that."""


@dataclass(frozen=True, slots=True)
class DestinationIds:
    """The ids of destinations by name, as a process knows them.

    Args:
        known: All that Redis has; None = nobody has asked it, and each name is its own id.
        own: Those that the process was given for the names of its configuration. They stay for as
            long as it lives, whatever names their destinations get.
    """

    known: Mapping[str, str] | None = None
    own: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def loads(cls, stored: Mapping[bytes, bytes], own: Mapping[str, str]) -> Self:
        """Read the hash in Redis: name → id, a space, and the address."""
        rows = ((name.decode(), value.split(b" ")[0].decode()) for name, value in stored.items())
        return cls(dict(rows), own)

    def of(self, name: str) -> str:
        """Return the id of a destination; for one that has none, an id under which nothing is.

        It is the one that the destination would be given, unless another one had its name before.
        """
        known = self.known or {}
        found = self.own.get(name) or known.get(name)
        return found or (name + _UNKNOWN if name in known.values() else name)

    def has(self, name: str) -> bool:
        """Say whether a destination has an id."""
        return self.known is None or name in self.own or name in self.known

    def name_of(self, destination_id: str) -> str:
        """Return the name of a destination: that of the configuration, else today's."""
        for names in (self.own, self.known or {}):
            for name, each in names.items():
                if each == destination_id:
                    return name
        return destination_id

    def names(self) -> list[str]:
        """Return the names of all destinations that Redis knows, each destination once."""
        return sorted({self.name_of(each) for each in (self.known or {}).values()})

    def partition(self, name: str, number: int) -> PartitionKeys:
        """Return the keys of a partition of a destination."""
        return PartitionKeys(name, number, self.of(name))

    def partition_of(self, destination_id: str, number: int) -> PartitionKeys:
        """Return the keys of a partition of the destination with an id."""
        return PartitionKeys(self.name_of(destination_id), number, destination_id)
