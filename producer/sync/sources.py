"""The sources of a sync: Lytics' scan, or a folder of exports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol, Self

from producer.events.identity import ID, PROFILE_ID
from producer.lytics import LyticsApi, Page, Patience
from worker.contract.settings import LyticsSettings
from worker.errors import LyticsUnavailable

REQUEST_SECONDS: Final = 5.0
"""The longest time of one request; a step that has lasted as long begins no other."""
_SEGMENTS: Final = "segments"


class Look(NamedTuple):
    """A second look at somebody who was missing in the scan.

    Attributes:
        profile: {} where there is none any more.
    """

    is_member: bool
    profile: dict[str, Any]


class SyncSource(Protocol):
    """The members of the audience, page by page."""

    @property
    def is_live(self) -> bool:
        """Say whether the source answers with present data, so that its clock has to be right."""

    def page(self, start: str) -> Page:
        """Return the page to which a token leads; "" leads to the first.

        Raises:
            ScanExpired: The scan has to begin anew.
            SourceDamaged: It is a file, and not whole.
            LyticsUnavailable: It can't be read now.
        """

    def look(self, profile_key: str) -> Look:
        """Look at one person again; raises as `page`."""

    def refuse_change(self, origin: str) -> None:
        """Raise if the source has changed since it was scanned; called before exits are published.

        Raises:
            ScanExpired: It was written to since: what was read may have been a part of it.
        """


OpenSource = Callable[[Callable[[float], None]], AbstractContextManager[SyncSource]]
"""A function that opens a source for one step; its argument waits, or raises if it can't."""


class LyticsSource:
    """Reads Lytics' own API; used in a `with` block.

    Args:
        name: The audience's slug or id, as Lytics is asked for it.
        slug: As profiles name it.
        identity: The configured identity field.
        fields: That rows hold; none = all.
    """

    is_live = True

    def __init__(
        self,
        settings: LyticsSettings,
        *,
        name: str,
        slug: str,
        identity: str,
        fields: Sequence[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        patience = Patience(sleep=sleep)
        self._api = LyticsApi(settings, timeout_seconds=REQUEST_SECONDS, patience=patience)
        self._name = name
        self._slug = slug
        self._field = PROFILE_ID if identity == ID else identity
        self._fields = fields

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.__exit__()

    def page(self, start: str) -> Page:
        """Return a page of the scan."""
        return self._api.scan(self._name, fields=self._fields, start=start)

    def look(self, profile_key: str) -> Look:
        """Ask Lytics whether one person is still in the audience."""
        found = self._api.profile(self._field, profile_key.partition(":")[2])
        if found is None:
            return Look(is_member=False, profile={})
        segments = found.get(_SEGMENTS)
        if not isinstance(segments, list):
            raise LyticsUnavailable("Lytics does not tell the audiences of a profile.")
        return Look(self._slug in segments or self._name in segments, found)

    def refuse_change(self, origin: str) -> None:
        """Do nothing: each missing person is looked up once more before an exit is published."""
