"""Render and shape deliveries. Triggers with the same template are rendered together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self, assert_never

from segrelay.jsonnet.rendered import (
    UNREAD,
    Asserted,
    Engine,
    Killed,
    Rendered,
    Row,
    Template,
    TemplateFailed,
)
from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.judge import decode_batch
from segrelay.worker.batch.read import Reading
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, parsed
from segrelay.worker.errors import SegrelayError
from segrelay.worker.logs import log_bug

RENDER_GROUP: Final = 100
"""The number of deliveries between two looks at the clock: rendering holds the interpreter."""
ISOLATING_SECONDS: Final = 15.0
"""The seconds after which a batch renders no further suspects: they stay in their streams."""


class RowRenderer(Protocol):
    """Renders rows with one template; the rows may be of several triggers."""

    async def render(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, isolated: bool
    ) -> list[Rendered | Asserted | TemplateFailed | Killed]:
        """Render rows and return the results in their order.

        Isolated rows are rendered in a throw-away process with limits. There may be fewer results
        than isolated rows; the other rows are left for another time.
        """

    async def render_safely(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, compares: bool = False
    ) -> list[Rendered | None]:
        """Render only the rows that can't kill the process; None for all others.

        Other work has its turn all the time. If rows take so long that it would have to wait, there
        are fewer results. What an engine is to confirm is among the others, unless `compares` asks
        for that at once.
        """

    def doubts(self, template: Template) -> bool:
        """Say whether earlier results of `render_safely` for a template are no longer trusted."""


class _Group(NamedTuple):
    """The properties that deliveries have in common which are rendered together."""

    template: Template
    engine: Engine
    isolated: bool


class _Part(NamedTuple):
    """Deliveries of one group that are rendered at once."""

    group: _Group
    deliveries: Sequence[Delivery]
    rows: Sequence[Row]


async def render_and_shape(
    going: Sequence[Delivery],
    batch: Batch,
    renderer: RowRenderer,
    ends: Callable[[], Awaitable[bool]],
) -> None:
    """Render and shape deliveries into the batch, template by template, until `ends` says to stop.

    What was left over comes first, as it has waited the longest. What was rendered ahead comes
    last: a template may lose its trust while the rest is rendered.
    """
    rest = [each for each in going if each.position not in batch.before]
    isolating_ends = batch.state.clock.seconds() + ISOLATING_SECONDS

    async def render(part: _Part) -> bool:
        results = await _rendered(renderer, part.group, part.rows)
        _shape_all(part, results, batch)
        return not part.group.isolated or (
            len(results) == len(part.rows)
            and not any(isinstance(result, Killed) for result in results)
            and batch.state.clock.seconds() < isolating_ends
        )

    _add_rendered(going, batch, batch.left_over)
    await _render_parts(rest, batch, render, ends)
    forget_doubted(batch, renderer)
    _add_rendered(going, batch, frozenset(batch.before))


def _add_rendered(going: Sequence[Delivery], batch: Batch, positions: frozenset[str]) -> None:
    for delivery in going if positions else ():
        if delivery.position in positions and delivery.position in batch.before:
            batch.add_rendered(delivery)


async def render_ahead(
    batch: Batch, renderer: RowRenderer, ends: Callable[[], Awaitable[bool]]
) -> None:
    """Render and shape a batch before its turn, into `batch.before`, until `ends` says to stop.

    Requests of other deliveries are under way, so that this process must not be at risk, nor busy
    for long. Whatever is not simply rendered and shaped is left to the batch's turn.
    """

    async def render(part: _Part) -> bool:
        group = part.group
        results = await renderer.render_safely(group.template, group.engine, part.rows)
        now_us = batch.state.now_ms() * 1000
        for delivery, result in zip(part.deliveries, results, strict=False):
            if result and _is_shaped(delivery, result, now_us):
                batch.before[delivery.position] = delivery
        return len(results) == len(part.rows)

    await _render_parts(batch.decoded, batch, render, ends)


async def _render_parts(
    deliveries: Iterable[Delivery],
    batch: Batch,
    render: Callable[[_Part], Awaitable[bool]],
    ends: Callable[[], Awaitable[bool]],
) -> None:
    """Render deliveries part by part, until `render` returns false or `ends` says to stop.

    The first part is rendered in any case: what has its turn comes on, whoever else waits.
    """
    for part in _parts(deliveries, batch):
        if not await render(part) or await ends():
            return


def _parts(deliveries: Iterable[Delivery], batch: Batch) -> Iterator[_Part]:
    """Yield deliveries that are rendered together, in parts that don't take long.

    Suspects come last: whatever they do, the others have been rendered by then.
    """
    suspects = batch.state.suspects
    groups: dict[_Group, list[Delivery]] = {}
    of_trigger: dict[tuple[str, bool], list[Delivery]] = {}
    for delivery in deliveries:
        isolated = bool(suspects) and delivery.position in suspects
        members = of_trigger.get((delivery.trigger, isolated))
        if members is None:
            trigger = delivery.loaded
            assert trigger.template is not None
            group = _Group(trigger.template, trigger.engine, isolated)
            members = groups.setdefault(group, [])
            of_trigger[delivery.trigger, isolated] = members
        members.append(delivery)
    for group, members in sorted(groups.items(), key=lambda each: each[0].isolated):
        for first in range(0, len(members), RENDER_GROUP):
            part = members[first : first + RENDER_GROUP]
            rows = [Row(each.text, each.loaded.settings, each.event.time_us) for each in part]
            yield _Part(group, part, rows)


def forget_doubted(batch: Batch, renderer: RowRenderer) -> None:
    """Forget what was rendered ahead if a template's compiled form is no longer trusted."""
    if not batch.before:
        return
    templates = {trigger.template for trigger in batch.triggers.values() if trigger.template}
    doubted = {template for template in templates if renderer.doubts(template)}
    if doubted:
        kept = batch.before.items()
        batch.before = {at: each for at, each in kept if each.loaded.template not in doubted}


async def _rendered(
    renderer: RowRenderer, group: _Group, rows: Sequence[Row]
) -> list[Rendered | Asserted | TemplateFailed | Killed]:
    """Render rows. After an error of our own, they are rendered one by one to find its row."""
    try:
        return await renderer.render(group.template, group.engine, rows, isolated=group.isolated)
    except SegrelayError:
        raise
    except Exception as error:
        if group.isolated:
            raise
        if len(rows) == 1:
            message = log_bug(error, "rendering.failed", template=group.template.name)
            return [TemplateFailed(message, "", 0)]
    return [result for row in rows for result in await _rendered(renderer, group, [row])]


def _shape_all(
    part: _Part, results: Sequence[Rendered | Asserted | TemplateFailed | Killed], batch: Batch
) -> None:
    """Shape the results of rendering; isolated rows may have fewer results than rows."""
    isolated = part.group.isolated
    now_us = batch.state.now_ms() * 1000
    for delivery, result in zip(part.deliveries, results, strict=not isolated):
        if isolated:
            batch.state.suspects.discard(delivery.position)
        try:
            _shape(delivery, result, now_us, batch)
        except Exception as error:  # noqa: BLE001 - it costs this one delivery
            message = log_bug(error, "shaping.failed", trigger=delivery.trigger)
            batch.fail(delivery, Death.INVALID, message)


def _shape(
    delivery: Delivery,
    result: Rendered | Asserted | TemplateFailed | Killed,
    now_us: int,
    batch: Batch,
) -> None:
    match result:
        case Rendered():
            not_sendable = _shaped(delivery, result, now_us)
            if not_sendable:
                batch.not_sendable(delivery, not_sendable)
            else:
                batch.add(delivery)
        case Asserted(message):
            remark = f"asserted: {normalise_message(message)}"
            batch.skipped.append(delivery.skip(Skip.ASSERTED, remark))
        case TemplateFailed(message, file, line):
            text = normalise_message(message)
            text = f"{file}:{line}: {text}" if file else text
            batch.fail(delivery, Death.TEMPLATE_ERROR, text)
        case Killed():
            text = "Rendering this event, alone, killed the process or ran out of time or memory."
            batch.fail(delivery, Death.KILLED_WORKER, text)
        case _ as never:
            assert_never(never)


def _is_shaped(delivery: Delivery, rendered: Rendered, now_us: int) -> bool:
    """Make the rendered body of a delivery valid; returns whether that was possible."""
    try:
        return _shaped(delivery, rendered, now_us) is None
    except Exception:  # noqa: BLE001 - the batch's turn tells of it
        return False


def _shaped(delivery: Delivery, rendered: Rendered, now_us: int) -> NotSendable | None:
    """Make the rendered body of a delivery valid, or return why it can't be."""
    trigger = delivery.loaded
    body = delivery.body = rendered.body
    value = parsed(body) if rendered.value is UNREAD else rendered.value
    shaped = trigger.api.shape(value, delivery.header, trigger.rules, now_us)
    if isinstance(shaped, NotSendable):
        return shaped
    delivery.shaped = shaped
    names: list[bytes | str] = [delivery.digest]
    for user in shaped.users:
        names += trigger.api.identifiers(user)
    delivery.names = frozenset(names)
    return None


@dataclass(slots=True, eq=False)
class NextBatch:
    """The next batch, prepared while the present one is delivered: read, decoded, and rendered.

    Nothing is decided ahead: when its turn comes, the ledger is asked and its events contend as
    those of every batch. If anything of the batch before stays where it is, or waits, then what was
    read ahead is forgotten, and read again in its order.

    Args:
        reading: The reading of the present batch, which goes on behind it.
        entries: The largest number of entries in a batch.
    """

    present: Batch
    reading: Reading
    renderer: RowRenderer
    entries: int
    prepared: Batch | None = None
    _has_begun: bool = False
    _is_over: bool = False
    _preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Enter the block in which the next batch may be prepared."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop preparing, and wait until the step under way has ended."""
        self._is_over = True
        if self._preparing:
            await self._preparing

    def begin(self, ends: Callable[[], Awaitable[bool]]) -> None:
        """Begin to prepare the next batch, if it is worth it; called again, this does nothing."""
        if not self._has_begun:
            self._has_begun = True
            # Most of the next batch will be sent, if most of this one is. Before the first answer
            # only what is not sent is settled.
            batch = self.present
            is_sent = 2 * batch.settled <= len(batch.deliveries)
            if is_sent and batch.state.is_untroubled(batch.streams):
                self._preparing = asyncio.ensure_future(self._prepare(ends))

    async def _prepare(self, ends: Callable[[], Awaitable[bool]]) -> None:
        this = self.present

        async def is_over() -> bool:
            return self._is_over or await ends()

        try:
            deliveries = await self.reading.read_on(this.streams, this.deliveries)
            if deliveries and not await is_over():
                batch = Batch(this.state, this.numbers, this.triggers, this.kind, this.streams)
                await decode_batch(batch, deliveries, entries=self.entries)
                await render_ahead(batch, self.renderer, is_over)
                self.prepared = batch
        except SegrelayError:
            # Whatever it is, the batch's turn meets it, too.
            return
        except Exception as error:  # noqa: BLE001 - without it, the batch has its turn all the same
            log_bug(error, "preparing.failed")

    def turn(self, streams: Sequence[str]) -> Batch | None:
        """Return the prepared batch; None = read it anew, because something comes before it."""
        present, prepared = self.present, self.prepared
        if prepared is None or present.settled < len(present.deliveries):
            return None
        if not {delivery.stream for delivery in prepared.deliveries}.issubset(streams):
            return None
        prepared.streams = streams
        return prepared

    def hand_over(self, batch: Batch) -> None:
        """Pass the rendered deliveries to the batch that was read again."""
        batch.follow(self.present, self.prepared)
