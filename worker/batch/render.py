"""Render and shape deliveries. Triggers with the same template are rendered together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, assert_never

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
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, parsed
from segrelay.worker.errors import SegrelayError
from segrelay.worker.logs import log_bug

if TYPE_CHECKING:
    from segrelay.worker.adapters.jsonnet import ProcessRenderer

RENDER_GROUP: Final = 50
"""The number of deliveries that are rendered in one call; they share its limits of time and memory.

Between two calls others have their turn: rendering holds the interpreter."""
ISOLATING_SECONDS: Final = 15.0
"""The seconds after which a batch renders no further suspects: they stay in their streams."""


_Group = tuple[Template, Engine, bool]
"""Template and engine of deliveries that are rendered together; True = in a throw-away process."""


async def render_and_shape(
    going: Sequence[Delivery], batch: Batch, ends: Callable[[Batch], Awaitable[bool]]
) -> None:
    """Render and shape deliveries into the batch, template by template, until `ends` says to stop.

    The first part is rendered in any case, so that a batch makes progress whoever else waits.
    """
    isolating_ends = batch.drain.clock.seconds() + ISOLATING_SECONDS
    for group, deliveries in _parts(going, batch):
        *_, isolated = group
        rows = [Row(each.text, each.loaded.settings, each.header.time_us) for each in deliveries]
        results = await _rendered(batch.drain.renderer, group, rows)
        now_us = batch.state.now_ms() * 1000
        # Isolated rows may have fewer results than rows.
        for delivery, result in zip(deliveries, results, strict=not isolated):
            batch.state.suspects.discard(delivery.position)
            try:
                _shape(delivery, result, now_us, batch)
            except Exception as error:  # noqa: BLE001 - it costs this one delivery
                message = log_bug(error, "shaping.failed", trigger=delivery.trigger)
                batch.fail(delivery, Death.INVALID, message)
        if isolated and (
            len(results) < len(rows)
            or any(isinstance(result, Killed) for result in results)
            or batch.drain.clock.seconds() >= isolating_ends
        ):
            return
        if await ends(batch):
            return


def _parts(
    deliveries: Iterable[Delivery], batch: Batch
) -> Iterator[tuple[_Group, Sequence[Delivery]]]:
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
            members = groups.setdefault((trigger.template, trigger.engine, isolated), [])
            of_trigger[delivery.trigger, isolated] = members
        members.append(delivery)
    for group, members in sorted(groups.items(), key=lambda each: each[0][-1]):
        for first in range(0, len(members), RENDER_GROUP):
            yield group, members[first : first + RENDER_GROUP]


async def _rendered(
    renderer: ProcessRenderer, group: _Group, rows: Sequence[Row]
) -> list[Rendered | Asserted | TemplateFailed | Killed]:
    """Render rows. After an error of our own, they are rendered one by one to find its row."""
    template, engine, isolated = group
    try:
        return await renderer.render(template, engine, rows, isolated=isolated)
    except SegrelayError:
        raise
    except Exception as error:
        if isolated:
            raise
        if len(rows) == 1:
            message = log_bug(error, "rendering.failed", template=template.name)
            return [TemplateFailed(message, "", 0)]
    return [result for row in rows for result in await _rendered(renderer, group, [row])]


def _shape(
    delivery: Delivery,
    result: Rendered | Asserted | TemplateFailed | Killed,
    now_us: int,
    batch: Batch,
) -> None:
    """Make the rendered body of a delivery valid, or note why there is none."""
    match result:
        case Rendered():
            trigger, body = delivery.loaded, result.body
            delivery.body = body
            value = parsed(body) if result.value is UNREAD else result.value
            shaped = trigger.api.shape(value, delivery.header, trigger.rules, now_us)
            if isinstance(shaped, NotSendable):
                batch.not_sendable(delivery, shaped)
                return
            delivery.shaped = shaped
            names: list[bytes | str] = [delivery.digest]
            for user in shaped.users:
                names += trigger.api.identifiers(user)
            delivery.names = frozenset(names)
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
