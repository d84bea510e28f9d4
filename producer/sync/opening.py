"""Making the object that does the steps of a sync, from the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from redis import Redis

from producer.publish import Publisher
from producer.publishing.audiences import AudienceBook
from producer.sources.csv_rows import Columns
from producer.sync.book import SyncBook
from producer.sync.files import FileSource
from producer.sync.sources import LyticsSource, OpenSource, SyncSource
from producer.sync.step import Syncing
from worker.contract.problems import did_you_mean
from worker.contract.redis.claim import settled_numbering
from worker.contract.settings import Settings, SyncSchedule
from worker.contract.words import Direction
from worker.errors import ConfigurationInvalid, UsageWrong

_ID: Final = re.compile(r"[0-9a-f]{32}")


def syncing_for(client: Redis, settings: Settings, name: str, publisher: Publisher) -> Syncing:
    """Return a configured sync, ready to do steps.

    Raises:
        RedisUnavailable: Redis can't be asked, or the number of partitions is being changed.
        UsageWrong: There is no such sync, or its audience's id is not known.
    """
    schedule = settings.sync.get(name)
    if schedule is None:
        raise UsageWrong(f"There is no [sync.{name}]: {did_you_mean(name, settings.sync)}.")
    audience = slug_of(AudienceBook(client, learns=False), schedule.audience)
    return Syncing(
        book=SyncBook(client, name, settled_numbering(client, settings)),
        publisher=publisher,
        audience=audience,
        identity=settings.delivery.identity,
        every_seconds=schedule.every_seconds,
        repair_every_seconds=schedule.repair_every_seconds,
        on_change=schedule.on_change,
        open_source=_opener(settings, schedule, audience, publisher),
    )


def columns_of(settings: Settings) -> Columns:
    """Return how CSV files are read, as `[producer.backfill]` says."""
    known = settings.producer.backfill
    return Columns(
        identity=settings.delivery.identity,
        renamed=dict(known.columns),
        lists=known.lists,
        maps=known.maps,
    )


def slug_of(book: AudienceBook, name: str) -> str:
    """Return the slug of an audience that is named by slug, former slug or id.

    Raises:
        UsageWrong: It is an id, and no payload has told its slug.
    """
    known = book.slug_of(name)
    if known or not _ID.fullmatch(name):
        return book.now_called(known or name)
    raise UsageWrong(
        f"Audience {name} is an id whose slug is not known yet: name the slug, or tell it by"
        f" `segrelay audience set {name} SLUG`."
    )


def _opener(
    settings: Settings, schedule: SyncSchedule, audience: str, publisher: Publisher
) -> OpenSource:
    def opened(sleep: Callable[[float], None]) -> AbstractContextManager[SyncSource]:
        if schedule.files:
            return FileSource(str(settings.folder / schedule.files), columns_of(settings))
        if settings.lytics is None:
            raise ConfigurationInvalid(f"[sync.{schedule.name}] needs the table [lytics].")
        return LyticsSource(
            settings.lytics,
            name=schedule.audience,
            slug=audience,
            identity=settings.delivery.identity,
            fields=fields_of(publisher, audience, settings.delivery.identity),
            sleep=sleep,
        )

    return opened


def fields_of(publisher: Publisher, audience: str, identity: str) -> Sequence[str]:
    """Return the fields that the triggers of an audience export; none = a trigger exports all."""
    routes = [
        route for direction in Direction for route in publisher.recipients_for(audience, direction)
    ]
    if not all(route.export_fields for route in routes):
        return ()
    exported = {name for route in routes for name in route.export_fields}
    return sorted(exported | ({"_id", "_uid"} if identity == "id" else {identity, "_uid"}))
