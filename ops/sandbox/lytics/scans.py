"""`GET /api/segment/…/scan`: pages of members, each with the token of the next (lytics.md, 3)."""

from __future__ import annotations

import base64
import binascii
from random import Random
from typing import Any, Final, NamedTuple

import orjson

from ops.sandbox.answer import Reply, json_answer
from ops.sandbox.lytics.account import Account, LyticsProfile
from ops.sandbox.lytics.switches import LyticsSwitches

_DEFAULT_LIMIT: Final = 20


class _Token(NamedTuple):
    """The contents of the token of the next page.

    Attributes:
        uid: Behind whom the page begins.
        rows: The number of rows of the pages before.
        issued: The time of the token, in seconds since 1970.
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
        return self._rows(token, _limit(query, self.switches.page_limit), query, now)

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


def _limit(query: dict[str, str], most: int) -> int:
    text = query.get("limit", "")
    return min(most, max(1, int(text))) if text.isdecimal() else min(most, _DEFAULT_LIMIT)
