"""Making the object that does the steps of a sync, from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from redis import Redis

from producer.lytics import Patience
from producer.publish import Publisher
from producer.publishing.audiences import named_audience
from producer.sources.csv_rows import Columns
from producer.sources.scans import find_slug
from producer.sync.book import SyncBook
from producer.sync.files import FileSource
from producer.sync.sources import REQUEST_SECONDS, LyticsSource, OpenSource, SyncSource
from producer.sync.step import Syncing
from worker.contract.problems import did_you_mean
from worker.contract.redis.claim import settled_numbering
from worker.contract.settings import Settings, SyncSchedule
from worker.contract.words import Direction
from worker.errors import ConfigurationInvalid, UsageWrong


def syncing_for(client: Redis, settings: Settings, name: str, publisher: Publisher) -> Syncing:
    """Return a configured sync, ready to do steps.

    Raises:
        RedisUnavailable: Redis can't be asked, or the number of partitions is being changed.
        UsageWrong: There is no such sync.
    """
    schedule = settings.sync.get(name)
    if schedule is None:
        raise UsageWrong(f"There is no [sync.{name}]: {did_you_mean(name, settings.sync)}.")

    def find_audience() -> str:
        return named_audience(
            publisher.audiences,
            schedule.audience,
            schedule.audience_id,
            look_up=lambda name: "" if schedule.files else _slug_at_lytics(settings, name),
        ).slug

    return Syncing(
        book=SyncBook(client, name, settled_numbering(client, settings)),
        publisher=publisher,
        find_audience=find_audience,
        identity=settings.delivery.identity,
        every_seconds=schedule.every_seconds,
        repair_every_seconds=schedule.repair_every_seconds,
        on_change=schedule.on_change,
        open_source=_opener(settings, schedule, find_audience, publisher),
    )


def _slug_at_lytics(settings: Settings, audience_id: str) -> str:
    """Look up a slug without waiting for a Lytics that is busy: the next step asks again."""
    once = Patience(tries=1)
    return find_slug(settings, audience_id, timeout_seconds=REQUEST_SECONDS, patience=once)


def columns_of(settings: Settings) -> Columns:
    """Return how CSV files are read, as `[producer.backfill]` says."""
    known = settings.producer.backfill
    return Columns(
        identity=settings.delivery.identity,
        renamed=dict(known.columns),
        lists=known.lists,
        maps=known.maps,
    )


def _opener(
    settings: Settings,
    schedule: SyncSchedule,
    find_audience: Callable[[], str],
    publisher: Publisher,
) -> OpenSource:
    def opened(sleep: Callable[[float], None]) -> AbstractContextManager[SyncSource]:
        if schedule.files:
            return FileSource(str(settings.folder / schedule.files), columns_of(settings))
        if settings.lytics is None:
            raise ConfigurationInvalid(f"[sync.{schedule.name}] needs the table [lytics].")
        audience = find_audience()
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
