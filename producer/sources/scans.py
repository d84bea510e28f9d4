"""Rows of Lytics' scan of an audience: `lytics:SLUG` instead of a file.

A scan can't be read twice in the same order, so a job that stopped scans again from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from producer.events.payloads import Payload
from producer.lytics import TIMEOUT_SECONDS, LyticsApi, Page, Patience, begun_us
from worker.contract.settings import LyticsSettings, Settings
from worker.errors import LyticsRefused, ScanExpired, UsageWrong

PREFIX: Final = "lytics:"
_EVERYBODY: Final = "all"
"""The segment that every profile is in."""
_MOST_CANDIDATES: Final = 10


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The facts about a scan that are known before it is read.

    Args:
        at_us: When the scan began, by Lytics' own clock, in µs since 1970; see `begun_us`.
        members: How many there are; 0 where Lytics does not say.
    """

    at_us: int
    members: int


def audience_of(source: str) -> str:
    """Return the audience that a source scans; "" where it is no scan.

    Raises:
        UsageWrong: It names none.
    """
    if not source.startswith(PREFIX):
        return ""
    audience = source.removeprefix(PREFIX).strip()
    if not audience:
        raise UsageWrong("Name the audience to scan: lytics:SLUG.")
    return audience


def lytics_of(settings: Settings) -> LyticsSettings:
    """Return the settings of Lytics' API.

    Raises:
        UsageWrong: The configuration does not say it.
    """
    if settings.lytics is None:
        raise UsageWrong(f"A scan needs the table [lytics] in {settings.source.name}.")
    return settings.lytics


def look_at(settings: Settings, audience: str, now_us: int) -> FirstLook:
    """Ask Lytics for its time and for the number of members.

    Raises:
        LyticsRefused: There is no such audience, or the token may not read it.
        LyticsUnavailable: Lytics does not answer, or its clock is wrong.
    """
    with LyticsApi(lytics_of(settings)) as api:
        page = api.scan(audience)
    return FirstLook(begun_us(page, now_us), page.total or 0)


def find_slug(
    settings: Settings,
    audience_id: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    patience: Patience | None = None,
) -> str:
    """Return the slug of the audience that Lytics knows by an id; "" = it can't be told.

    Rows name the slugs of all audiences that a profile is in. It is a slug that all rows of the
    first page have in common, and whose own scan begins with the same people.

    Raises:
        LyticsRefused: There is no such audience, or the token may not read it.
        LyticsUnavailable: Lytics does not answer.
    """
    if settings.lytics is None:
        return ""
    with LyticsApi(settings.lytics, timeout_seconds=timeout_seconds, patience=patience) as api:
        page = api.scan(audience_id)
        common = [_slugs(row) for row in page.rows]
        candidates = set.intersection(*common) - {_EVERYBODY} if common else set()
        if len(candidates) > _MOST_CANDIDATES:
            return ""
        same = [slug for slug in sorted(candidates) if _is_scan_of(page, api, slug)]
    return same[0] if len(same) == 1 else ""


def _slugs(row: dict[str, Any]) -> set[str]:
    told = row.get("segments")
    return {slug for slug in told if isinstance(slug, str)} if isinstance(told, list) else set()


def _is_scan_of(page: Page, api: LyticsApi, slug: str) -> bool:
    """Say whether the scan of a slug begins with the same page; one that is refused does not."""
    try:
        other = api.scan(slug)
    except LyticsRefused:
        return False
    return page.total == other.total and [r.get("_uid") for r in page.rows] == [
        r.get("_uid") for r in other.rows
    ]


def scan_rows(settings: Settings, audience: str) -> Iterator[Payload]:
    """Yield a payload for each member; its line is the number of the row, from 1.

    Raises:
        ScanExpired: Lytics no longer knows where the scan stood.
        LyticsUnavailable: Lytics does not answer.
    """
    number = 0
    with LyticsApi(lytics_of(settings)) as api:
        try:
            for page in api.pages(audience):
                for row in page.rows:
                    number += 1
                    yield Payload(b"", row, number)
        except ScanExpired as error:
            raise ScanExpired(
                f"Lytics gave up the scan of '{audience}' behind row {number:,}. `segrelay "
                "backfill resume` scans again; who was delivered is not delivered twice."
            ) from error
