"""An account at Lytics: profiles and audiences, from which scans and webhooks are made."""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal, NamedTuple

import orjson

from segrelay.sandbox.exchange import Reply, json_answer
from segrelay.sandbox.settings import LyticsSwitches

MembershipChange = Literal["enter", "exit"]


def audience_id(slug: str) -> str:
    """Return the id of an audience: 32 hexadecimal digits, the same for a slug at every start."""
    return hashlib.md5(slug.encode(), usedforsecurity=False).hexdigest()


class Move(NamedTuple):
    """A profile that entered or left an audience.

    Attributes:
        at: The time, RFC 3339 with nine fractional digits as Lytics writes them.
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


_DEFAULT_LIMIT: Final = 20
_MOST_LIMIT: Final = 100


class _Token(NamedTuple):
    """The contents of the token of the next page.

    Attributes:
        uid: The uid after which the page begins.
    """

    slug: str
    uid: str
    rows: int
    issued: float

    def dumps(self) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(list(self))).decode()

    @classmethod
    def loads(cls, text: str) -> _Token | None:
        try:
            return cls(*orjson.loads(base64.urlsafe_b64decode(text)))
        except (ValueError, TypeError, binascii.Error):
            return None


class Scans:
    """Answers scans of one account; faults are drawn from a seeded random generator."""

    def __init__(self, account: Account, switches: LyticsSwitches) -> None:
        self.account = account
        self.switches = switches
        self.pages = 0
        self._random = Random(switches.seed)  # noqa: S311 - repeatable on purpose

    def page(self, name: str, query: dict[str, str], now: float) -> Reply:
        """Return one page of the members of an audience, which is named by slug or id."""
        slug = self.account.slug_of(name)
        if slug is None:
            return self._refused(404, f"not found: segment {name!r}")
        token = _Token(slug, "", 0, now)
        if query.get("start"):
            found = _Token.loads(query["start"])
            if found is None or found.slug != slug:
                return self._refused(400, "invalid start token")
            if now - found.issued > self.switches.page_token_seconds:
                return self._refused(400, "scan token expired")
            token = found
        self.pages += 1
        return self._rows(token, _limit(query), query, now)

    def _rows(self, token: _Token, limit: int, query: dict[str, str], now: float) -> Reply:
        names = [name for name in query.get("fields", "").split(",") if name]
        members = self.account.members_after(token.slug, token.uid, limit)
        last = members[-1].uid if members else token.uid
        rows = token.rows + len(members)
        ended = len(members) < limit or not self.account.members_after(token.slug, last, 1)
        cut = self.switches.scan_ends_after_rows
        if cut and rows >= cut:
            members = members[: max(0, cut - token.rows)]
            ended = True
        shown = [p.shown(names) for p in self._seen(members)]
        if shown and token.uid and self._draw(self.switches.repeated_rows):
            before = self.account.profiles.get(token.uid)
            shown = [*([before.shown(names)] if before else []), *shown]
        following = "" if ended else _Token(token.slug, last, rows, now).dumps()
        return self._page(shown, following, self.account.total(token.slug))

    def _seen(self, members: list[LyticsProfile]) -> list[LyticsProfile]:
        share = self.switches.hidden_rows
        return [member for member in members if not self._draw(share)] if share else members

    def _draw(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _page(self, rows: list[dict[str, Any]], following: str, total: int) -> Reply:
        status: int | str = "200" if self.switches.status_as_text else 200
        body = {"status": status, "message": "success", "_next": following}
        return json_answer(200, {**body, "total": total, "data": rows})

    def _refused(self, status: int, message: str) -> Reply:
        shown: int | str = str(status) if self.switches.status_as_text else status
        return json_answer(status, {"status": shown, "message": message})


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", "")
    return min(_MOST_LIMIT, max(1, int(text))) if text.isdecimal() else _DEFAULT_LIMIT
