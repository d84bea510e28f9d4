"""An account at Lytics: profiles and audiences, from which scans and webhooks are made."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

MembershipChange = Literal["enter", "exit"]


def audience_id(slug: str) -> str:
    """Return the id of an audience: 32 hexadecimal digits, the same for a slug at every start."""
    return hashlib.md5(slug.encode(), usedforsecurity=False).hexdigest()


class Move(NamedTuple):
    """A profile that entered or left an audience.

    Attributes:
        at: RFC 3339, with nine fractional digits as Lytics writes them.
    """

    uid: str
    slug: str
    change: MembershipChange
    at: str


@dataclass(slots=True)
class LyticsProfile:
    """A profile at Lytics: its fields, and the slugs of its audiences."""

    uid: str
    fields: dict[str, Any]
    segments: set[str] = field(default_factory=set)

    def shown(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return the profile as a scan's row shows it; `names` limits it to these fields."""
        fields = {n: v for n, v in self.fields.items() if not names or n in names}
        return {**fields, "_uid": self.uid, "segments": sorted(self.segments)}


class Account:
    """The profiles by uid, and the members of each audience in the order of scans."""

    def __init__(self) -> None:
        self.profiles: dict[str, LyticsProfile] = {}
        self._members: dict[str, list[str]] = {}
        self._slugs: dict[str, str] = {}

    def put(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Add or replace profiles; each row has `_uid`, `segments` and any fields."""
        count = 0
        for row in rows:
            uid = str(row["_uid"])
            fields = {k: v for k, v in row.items() if k not in {"_uid", "segments"}}
            known = self.profiles.setdefault(uid, LyticsProfile(uid, {}))
            known.fields = {**known.fields, **fields}
            if "segments" in row:
                wanted = {str(slug) for slug in row["segments"]}
                for slug in known.segments - wanted:
                    self._leave(known, slug)
                for slug in wanted - known.segments:
                    self._join(known, slug)
            count += 1
        return count

    def move(self, uid: str, slug: str, change: MembershipChange) -> bool:
        """Add a profile to an audience or remove it; say whether that changed anything."""
        profile = self.profiles[uid]
        if (slug in profile.segments) == (change == "enter"):
            return False
        (self._join if change == "enter" else self._leave)(profile, slug)
        return True

    def slug_of(self, name: str) -> str | None:
        """Return the slug of an audience by its slug or id; None if there is none."""
        return name if name in self._members else self._slugs.get(name)

    def audiences(self) -> dict[str, int]:
        """Return the number of members of each audience."""
        return {slug: len(members) for slug, members in sorted(self._members.items())}

    def members_after(self, slug: str, uid: str, count: int) -> list[LyticsProfile]:
        """Return the next members after a uid."""
        members = self._members.get(slug, [])
        first = bisect.bisect_right(members, uid)
        return [self.profiles[each] for each in members[first : first + count]]

    def total(self, slug: str) -> int:
        """Return the number of members of an audience."""
        return len(self._members.get(slug, ()))

    def find(self, name: str, value: str) -> LyticsProfile | None:
        """Return the profile with this value of a field."""
        if name == "_uid":
            return self.profiles.get(value)
        return next((p for p in self.profiles.values() if str(p.fields.get(name)) == value), None)

    def _join(self, profile: LyticsProfile, slug: str) -> None:
        profile.segments.add(slug)
        self._slugs[audience_id(slug)] = slug
        bisect.insort(self._members.setdefault(slug, []), profile.uid)

    def _leave(self, profile: LyticsProfile, slug: str) -> None:
        profile.segments.discard(slug)
        members = self._members[slug]
        del members[bisect.bisect_left(members, profile.uid)]
