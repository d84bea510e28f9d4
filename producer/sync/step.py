"""One step of a sync: at most ten seconds of a run, which can end anywhere and be taken up again.

A run scans its source and compares it with the members that are known, then counts who was not
seen, then looks at these once more and publishes their exits. Members and events change in one
script, each member only if it still is as it was found: a step that is repeated, or that goes on
after another has taken the lock, does nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from segrelay.producer.events.payloads import ID, PROFILE_ID
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.audiences import named_audience
from segrelay.producer.sources.tables import Columns
from segrelay.producer.steps import STEP_SECONDS, Step, wait_seconds
from segrelay.producer.sync.comparing import Comparison
from segrelay.producer.sync.sources import (
    ExportMissing,
    FileSource,
    LyticsSource,
    OpenSource,
    SyncSource,
)
from segrelay.producer.sync.store import CERTAIN, Phase, Run, SyncStore
from segrelay.worker.contract.printable import did_you_mean, plural
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import SyncSchedule
from segrelay.worker.contract.settings.urls import is_remote
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import (
    ConfigurationInvalid,
    LyticsUnavailable,
    OperationsMustAct,
    ScanExpired,
    SegrelayError,
    SourceDamaged,
    SourceUnavailable,
    UsageWrong,
    WeMustAct,
)

LOG: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
_REFUSED_SECONDS: Final = 60.0
_FULL_SECONDS: Final = 5.0
_SOONER_SECONDS: Final = 300.0
"""The longest wait for the next run after a scan that is in doubt."""


class _Full(OperationsMustAct):
    """Redis has no room now; the step ends without being a failure."""


@dataclass(slots=True)
class Syncing:
    """Does the steps of one sync.

    Args:
        find_audience: A function that returns the audience's slug, or raises UsageWrong or
            LyticsUnavailable.
        log: The log; a terminal, which shows the lines of the steps, gives one that writes nothing.
    """

    store: SyncStore
    publisher: Publisher
    schedule: SyncSchedule
    find_audience: Callable[[], str]
    identity: str
    open_source: OpenSource
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    log: structlog.typing.FilteringBoundLogger = LOG

    def step(self, *, is_over: Callable[[], bool] = lambda: False, forced: bool = False) -> Step:
        """Go on with the sync for one step: begin it, read, compare, or settle who has left.

        Args:
            is_over: A function that says that the step should end, e.g. because live work waits.
            forced: True if a run begins even if none is due.

        Raises:
            RedisUnavailable: The next step goes on where the last saving was.
            WeMustAct: The configuration does not fit; the run stays where it is.
        """
        ends_at = self.monotonic() + STEP_SECONDS
        return self.store.step(
            partial(
                self._step, is_over=lambda: self.monotonic() > ends_at or is_over(), forced=forced
            )
        )

    def _step(self, run: Run, now_ms: int, *, is_over: Callable[[], bool], forced: bool) -> Step:
        if not (run.is_under_way or forced or run.next_ms <= now_ms):
            self.store.save(run, ends=True)
            return Step("nothing is due")
        try:
            if not run.is_under_way:
                run = self._following(run, now_ms)
            self.store.claim(run.destinations)
            run.problem = ""
            self._go_on(run, is_over)
        except (_Full, SourceUnavailable, WeMustAct) as error:
            self._note_failure(run, error)
            if isinstance(error, WeMustAct):
                raise
            left_seconds = max(0.0, (run.next_ms - self.store.now_ms()) / 1000)
            return Step(f"{run.line()}; {error.message}", wait_seconds=left_seconds)
        except SourceDamaged as error:
            self._end_damaged(run, error)
            return Step(f"{run.line()}; {run.problem}")
        run.failures, run.refused, run.next_ms = 0, False, self._next_ms(run)
        self.store.save(run, ends=True)
        return Step(run.line(), more=run.is_under_way)

    def _following(self, run: Run, now_ms: int) -> Run:
        audience = self.find_audience()
        if run.audience not in ("", audience):
            raise UsageWrong(
                f"Sync '{self.store.name}' was of the audience '{run.audience}' and is of"
                f" '{audience}' now: all members of the first would seem to have left."
                f" `segrelay sync reset {self.store.name}` forgets them, or give it another name."
            )
        destinations = {
            trigger.destination
            for direction in Direction
            for trigger in self.publisher.triggers_for(audience, direction)
        }
        if not destinations:
            raise UsageWrong(
                f"No trigger wants the audience '{audience}' of sync '{self.store.name}'."
            )
        is_due = run.is_repair_due(now_ms, self.schedule.repair_every_seconds)
        run = run.following(audience, sorted(destinations), now_ms, repairs_again=is_due)
        self.store.save(run)
        self.log.info("sync.begun", sync=self.store.name, run=run.number)
        return run

    def _go_on(self, run: Run, is_over: Callable[[], bool]) -> None:
        """Work on the present phase of the run, and on the next ones while the step lasts."""
        with self.open_source(self._pausing()) as source:
            comparison = Comparison(
                self.store,
                self.publisher,
                source,
                self.identity,
                run,
                self._check_capacity,
                self.schedule.on_change,
            )
            if run.phase is Phase.SCAN:
                comparison.scan(is_over)
                if is_over():
                    return
            is_spent = False
            try:
                if run.phase is Phase.COUNT:
                    comparison.count(is_over)
                    is_spent = is_over()
                if run.phase is Phase.EXITS and not is_spent:
                    comparison.publish_exits(is_over)
            except ScanExpired as error:
                self.log.warning("sync.anew", sync=self.store.name, reason=error.message)
                comparison.scan_anew()
        if run.phase is Phase.IDLE:
            self.log.info("sync.ended", sync=self.store.name, **run.last)
        if run.phase is Phase.CONFIRM:
            self.log.error("sync.doubts", sync=self.store.name, reason=run.doubt)

    def _pausing(self) -> Callable[[float], None]:
        """Return the function that waits between requests to Lytics within the step's time."""
        ends_at = self.monotonic() + STEP_SECONDS

        def pause(seconds: float) -> None:
            if self.monotonic() + seconds > ends_at:
                raise LyticsUnavailable("Lytics is busy or away: the next step tries again.")
            self.sleep(seconds)

        return pause

    def _check_capacity(self, lane: str) -> None:
        full = self.publisher.why_full(lane)
        if full:
            raise _Full(full)

    def _note_failure(self, run: Run, error: SegrelayError) -> None:
        run.problem = error.message
        run.failures += not isinstance(error, _Full)
        is_refused = isinstance(error, WeMustAct)
        run.refused = is_refused and not isinstance(error, ExportMissing)
        wait = _FULL_SECONDS if isinstance(error, _Full) else wait_seconds(run.failures)
        if is_refused:
            wait = max(_REFUSED_SECONDS, min(self.schedule.every_seconds, _SOONER_SECONDS))
        run.next_ms = self.store.now_ms() + round(1000 * wait)
        self.store.save(run, ends=True)
        self.log.warning(
            "sync.waits", sync=self.store.name, failures=run.failures, reason=error.message
        )

    def _end_damaged(self, run: Run, error: SourceDamaged) -> None:
        """End a run whose file is not whole; the next one begins with the newest file again."""
        run.problem = (
            f"{error.message} Nobody is taken out by it. Write the export once more, as a whole."
        )
        run.end(self.store.now_ms(), outcome="damaged")
        run.failures, run.refused, run.next_ms = run.failures + 1, True, self._next_ms(run)
        self.store.save(run, ends=True)
        self.log.error("sync.damaged", sync=self.store.name, reason=error.message)

    def _next_ms(self, run: Run) -> int:
        """Return when the next step, or the next run, is due."""
        if run.is_under_way:
            return 0
        certain = run.phase is Phase.IDLE and run.last.get("outcome") in CERTAIN
        every = (
            self.schedule.every_seconds
            if certain
            else min(self.schedule.every_seconds, _SOONER_SECONDS)
        )
        return max(run.begun_ms + round(1000 * every), self.store.now_ms())


def confirm(
    store: SyncStore, run: Run, *, number: int | None = None, at_most: int | None = None
) -> int:
    """Confirm that the missing members have left; the lock must be held.

    Saving is refused if another step has taken the lock, so it is about the run that was read.

    Args:
        store: The store of the sync.
        run: The sync's state, as it was when the lock was taken.
        number: The number of the run that a person has looked at; None = that of the waiting run.
        at_most: The number of missing members that the person has agreed to; None = all of them.

    Returns:
        How many members may leave: now, or at the end of the scan that has begun meanwhile.

    Raises:
        UsageWrong: Nobody is in doubt, or another run or more members are.
    """
    if run.doubted is None:
        raise UsageWrong(f"Sync '{store.name}' waits for nobody's word: {run.line()}.")
    waiting, gone = run.doubted
    if number not in (None, waiting) or (at_most is not None and gone > at_most):
        raise UsageWrong(
            f"It is run {waiting} that waits, with {plural(gone, 'member')} missing: look at it"
            " anew. Nothing was done."
        )
    run.allowed = gone
    if run.phase is Phase.CONFIRM:
        run.phase, run.next_partition, run.next_ms, run.doubt = Phase.EXITS, 0, 0, ""
    store.save(run, ends=True)
    return run.allowed


FileSources = dict[str, FileSource]
"""The files that a process reads, by the names of their syncs: they stay open between steps."""


def syncing_for(
    client: Redis,
    settings: Settings,
    name: str,
    publisher: Publisher,
    files: FileSources | None = None,
) -> Syncing:
    """Return a configured sync, ready to do steps.

    Args:
        client: Redis.
        settings: The configuration.
        name: The name of the sync.
        publisher: The publisher of the events.
        files: The files that earlier steps of this process have open; None = there was no earlier
            step.

    Raises:
        RedisUnavailable: Redis can't be asked.
        UsageWrong: There is no such sync.
    """
    schedule = settings.sync.get(name)
    if schedule is None:
        raise UsageWrong(f"There is no [sync.{name}]: {did_you_mean(name, settings.sync)}.")

    def find_audience() -> str:
        return named_audience(publisher.audiences, schedule.audience)[0]

    def opened(sleep: Callable[[float], None]) -> AbstractContextManager[SyncSource]:
        if pattern := schedule.files:
            if name not in known_files:
                whole = pattern if is_remote(pattern) else str(settings.folder / pattern)
                known_files[name] = FileSource(whole, columns_of(settings))
            return known_files[name]
        if settings.lytics is None:
            raise ConfigurationInvalid(f"[sync.{name}] needs the table [lytics].")
        audience = find_audience()
        return LyticsSource(
            settings.lytics,
            name=schedule.audience,
            slug=audience,
            identity=settings.delivery.identity,
            fields=fields_of(publisher, audience, settings.delivery.identity),
            sleep=sleep,
        )

    claim(client, settings)
    known_files = {} if files is None else files
    return Syncing(
        store=SyncStore(client, name, settings.redis),
        publisher=publisher,
        schedule=schedule,
        find_audience=find_audience,
        identity=settings.delivery.identity,
        open_source=opened,
    )


def columns_of(settings: Settings) -> Columns:
    """Return how CSV files are read, as `[producer.backfill]` says."""
    known, identity = settings.producer.backfill, settings.delivery.identity
    return Columns(
        identity=identity, renamed=dict(known.columns), lists=known.lists, maps=known.maps
    )


def fields_of(publisher: Publisher, audience: str, identity: str) -> Sequence[str]:
    """Return the fields that the triggers of an audience export; none = a trigger exports all."""
    triggers = [
        trigger
        for direction in Direction
        for trigger in publisher.triggers_for(audience, direction)
    ]
    if not all(trigger.export_fields for trigger in triggers):
        return ()
    exported = {name for trigger in triggers for name in trigger.export_fields}
    return sorted(exported | {PROFILE_ID if identity == ID else identity})
