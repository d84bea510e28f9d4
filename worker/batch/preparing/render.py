"""Steps 5 and 6: render and shape. Triggers with the same template are rendered together."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from worker.batch.batch import Batch, Contender, Parcel
from worker.batch.letters import Obituary
from worker.batch.partition import Delivery, Settled
from worker.batch.route import Route
from worker.contract.words import Death, Skip
from worker.core.messages import normalise_message
from worker.destinations.api import NotSendable
from worker.errors import SegrelayError
from worker.jsonnet.rendered import (
    Asserted,
    Engine,
    Killed,
    Rendered,
    Row,
    Template,
    TemplateFailed,
)
from worker.logs import log_bug

RENDER_GROUP: Final = 100
"""Deliveries between two looks at the clock: rendering holds the interpreter."""
ISOLATING_SECONDS: Final = 15.0
"""After it no further group of suspects is begun in a batch: they stay where they are."""


class Renders(Protocol):
    """Renders rows with one template; the rows may be of several triggers."""

    async def render(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, isolated: bool
    ) -> list[Rendered | Asserted | TemplateFailed | Killed]:
        """Render rows and return the results in their order.

        Isolated rows are rendered in a throw-away process with limits. There may be fewer results
        than isolated rows; the other rows are left for another time.
        """
        ...

    async def render_safely(
        self, template: Template, engine: Engine, rows: Sequence[Row]
    ) -> list[Rendered | None]:
        """Render rows, but only what can't kill the process; None for all others.

        Other work has its turn all the time. If rows take so long that it would have to wait, there
        are fewer results.
        """
        ...

    def doubts(self, template: Template) -> bool:
        """Say whether what `render_safely` made of a template can't be trusted any more."""
        ...


class _Together(NamedTuple):
    """The properties of deliveries that are rendered together."""

    template: Template
    engine: Engine
    isolated: bool


async def render_and_shape(
    going: Sequence[tuple[Contender, tuple[Contender, ...]]],
    batch: Batch,
    renders: Renders,
    ends: Callable[[], Awaitable[bool]],
) -> None:
    """Render per template and shape, until it has to end; fills the batch.

    What was rendered ahead comes last: a template may lose its trust while the rest is rendered.
    """
    rest = [each for each in going if each[0].delivery.place not in batch.before]
    # What was left over has waited the longest.
    _take_in(going, batch, batch.left_over)
    await _render(rest, batch, renders, ends)
    forget_doubted(batch, renders)
    _take_in(going, batch, batch.before.keys())


def _take_in(
    going: Sequence[tuple[Contender, tuple[Contender, ...]]], batch: Batch, places: Collection[str]
) -> None:
    for contender, losers in going if places else ():
        if contender.delivery.place in places:
            batch.add_rendered(contender, losers)


def forget_doubted(batch: Batch, renders: Renders) -> None:
    """Forget what was rendered ahead by what is not trusted any more."""
    doubted = {
        name
        for name, route in batch.routes.items()
        if route.template and renders.doubts(route.template)
    }
    ahead = batch.before.keys() - batch.left_over
    for place in [p for p in ahead if batch.before[p].delivery.trigger in doubted]:
        del batch.before[place]


async def _render(
    going: Sequence[tuple[Contender, tuple[Contender, ...]]],
    batch: Batch,
    renders: Renders,
    ends: Callable[[], Awaitable[bool]],
) -> None:
    state, routes = batch.state, batch.routes
    groups: dict[_Together, list[tuple[Contender, tuple[Contender, ...]]]] = {}
    for contender, losers in going:
        route = routes[contender.delivery.trigger]
        assert route.template is not None
        suspect = bool(state.suspects) and contender.delivery.place in state.suspects
        kind = _Together(route.template, route.engine, isolated=suspect)
        groups.setdefault(kind, []).append((contender, losers))
    isolating_ends = state.clock.seconds() + ISOLATING_SECONDS
    # Suspects come last: whatever they do, the others have been rendered by then.
    for kind, group in sorted(groups.items(), key=lambda each: each[0].isolated):
        suspect = kind.isolated
        for first in range(0, len(group), RENDER_GROUP):
            if await ends():
                return
            part = group[first : first + RENDER_GROUP]
            rows = [
                Row(contender.profile, routes[contender.delivery.trigger].settings)
                for contender, _ in part
            ]
            results = await _rendered(renders, kind, rows)
            now_us = state.now_ms() * 1000
            for going_on, result in zip(part, results, strict=not suspect):
                if suspect:
                    state.suspects.discard(going_on[0].delivery.place)
                route = routes[going_on[0].delivery.trigger]
                _shape_one(going_on, result, route, now_us, batch)
            if suspect and (
                len(results) < len(part)
                or any(isinstance(result, Killed) for result in results)
                or state.clock.seconds() >= isolating_ends
            ):
                return


async def render_ahead(
    contenders: Sequence[Contender],
    batch: Batch,
    renders: Renders,
    ends: Callable[[], Awaitable[bool]],
) -> None:
    """Render and shape before the batch's turn, until it has to end; fills `batch.before`.

    Requests of other deliveries are under way, so that this process must not be at risk, nor busy
    for long. Whatever is not simply rendered and shaped is left to the batch's turn.
    """
    groups: dict[tuple[Template, Engine], list[Contender]] = {}
    for contender in contenders:
        route = batch.routes[contender.delivery.trigger]
        assert route.template is not None
        groups.setdefault((route.template, route.engine), []).append(contender)
    for (template, engine), group in groups.items():
        for first in range(0, len(group), RENDER_GROUP):
            if await ends():
                return
            part = group[first : first + RENDER_GROUP]
            rows = [Row(c.profile, batch.routes[c.delivery.trigger].settings) for c in part]
            results = await renders.render_safely(template, engine, rows)
            now_us = batch.state.now_ms() * 1000
            for contender, result in zip(part, results, strict=False):
                route = batch.routes[contender.delivery.trigger]
                with contextlib.suppress(Exception):  # the batch's turn tells of it
                    parcel = result and _parcel((contender, ()), result.body, route, now_us)
                    if isinstance(parcel, Parcel):
                        batch.before[contender.delivery.place] = parcel
            if len(results) < len(part):
                return


async def _rendered(
    renders: Renders, kind: _Together, rows: Sequence[Row]
) -> list[Rendered | Asserted | TemplateFailed | Killed]:
    """Render rows. After an error of our own, they are rendered one by one to find its row."""
    try:
        return await renders.render(kind.template, kind.engine, rows, isolated=kind.isolated)
    except SegrelayError:
        raise
    except Exception as error:
        if kind.isolated:
            raise
        if len(rows) == 1:
            message = log_bug(error, "rendering.failed", template=kind.template.name)
            return [TemplateFailed(message, "", 0)]
    return [result for row in rows for result in await _rendered(renders, kind, [row])]


def _shape_one(
    going: tuple[Contender, tuple[Contender, ...]],
    result: Rendered | Asserted | TemplateFailed | Killed,
    route: Route,
    now_us: int,
    batch: Batch,
) -> None:
    try:
        _shape(going, result, route, now_us, batch)
    except Exception as error:  # noqa: BLE001 - it costs this one delivery
        message = log_bug(error, "shaping.failed", trigger=route.trigger)
        body = result.body if isinstance(result, Rendered) else b""
        batch.deaths.append((going[0].delivery, Obituary(Death.INVALID, message, body=body)))


def _shape(
    going: tuple[Contender, tuple[Contender, ...]],
    result: Rendered | Asserted | TemplateFailed | Killed,
    route: Route,
    now_us: int,
    batch: Batch,
) -> None:
    delivery = going[0].delivery
    template = route.template.content_hash if route.template else ""
    match result:
        case Asserted(message):
            batch.skipped.append(
                Settled(delivery, Skip.ASSERTED, remark=f"asserted: {normalise_message(message)}")
            )
            return
        case TemplateFailed(message, file, line):
            text = normalise_message(message)
            text = f"{file}:{line}: {text}" if file else text
            obituary = Obituary(Death.TEMPLATE_ERROR, text, template)
            batch.deaths.append((delivery, obituary))
            return
        case Killed():
            text = "Rendering this event, alone, killed the process or ran out of time or memory."
            batch.deaths.append((delivery, Obituary(Death.KILLED_WORKER, text, template)))
            return
        case Rendered(body):
            pass
    parcel = _parcel(going, body, route, now_us)
    if isinstance(parcel, NotSendable):
        _not_sendable(delivery, parcel, template, body, batch)
    else:
        batch.add(parcel)


def _parcel(
    going: tuple[Contender, tuple[Contender, ...]], body: bytes, route: Route, now_us: int
) -> Parcel | NotSendable:
    (delivery, fact, _), losers = going
    shaped = route.api.shape(_loads(body), delivery.header, route.rules, now_us)
    if isinstance(shaped, NotSendable):
        return shaped
    known_by = map(route.api.identifiers, shaped.users)
    names = frozenset((delivery.header.digest,)).union(*known_by)
    return Parcel(delivery, fact, route, shaped, body, losers, names)


def _not_sendable(
    delivery: Delivery, shaped: NotSendable, template: str, body: bytes, batch: Batch
) -> None:
    match shaped.reason:
        case Skip() as reason:
            batch.skipped.append(
                Settled(delivery, reason, remark=f"{reason.value}: {shaped.message}")
            )
        case Death() as reason:
            obituary = Obituary(reason, shaped.message, template, body)
            batch.deaths.append((delivery, obituary))


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
