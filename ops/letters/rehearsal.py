"""Rehearsing: what today's template would make of events, without sending anything.

Rendering happens in a throw-away process: an event that killed a worker may be among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, assert_never

import orjson
from redis import Redis

from ops.letters.reading import Filter, find_letters
from worker.checks.rendering import RENDER_MEMORY_BYTES, RENDER_SECONDS
from worker.contract.events import Header, decode_header
from worker.contract.keys import PartitionKeys
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.contract.words import Death, Skip
from worker.core.messages import normalise_message
from worker.destinations.api import NotSendable, Occasion, Shaped
from worker.destinations.registry import api_of
from worker.errors import TemplateBroken
from worker.jsonnet.files import TemplateFolder
from worker.jsonnet.isolated import DiedAt, render_isolated
from worker.jsonnet.rendered import Asserted, Rendered, Result, Row, TemplateFailed

_GROUP: Final = 100
_DIED: Final = "Rendering it, alone, ends or hangs the process."

RehearsedFate = Literal["sent", "skipped", "dead"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event for one trigger.

    Args:
        name: By which the result is found again.
        profile: JSON text, with exactly one entry in `segment_events`.
    """

    name: str
    trigger: str
    header: Header
    profile: bytes


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would become of it now.

    Args:
        reason: "" = it would be sent.
        shaped: What would be sent.
        body: As rendered.
    """

    name: str
    fate: RehearsedFate
    reason: str = ""
    message: str = ""
    shaped: Shaped | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def said(self) -> str:
        """Return the message as it may be printed where no profile field is shown."""
        return normalise_message(self.message)


_STILL_UNREADABLE: Final = "The entry can't be read by this version of segrelay."


def rehearse_letters(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    ids: Sequence[str],
    now_ms: int,
) -> Iterator[Rehearsed]:
    """Rehearse letters that could be replayed."""
    for first in range(0, len(ids), _GROUP):
        part = Filter(frozenset(ids[first : first + _GROUP]))
        letters = list(find_letters(client, places, part))
        candidates = [
            Candidate(
                letter["id"],
                letter["trigger"],
                decode_header(orjson.dumps(letter["header"])),
                orjson.dumps(letter["profile"]),
            )
            for letter in letters
            if "entry" not in letter
        ]
        yield from rehearse(candidates, settings, now_us=1000 * now_ms)
        for letter in letters:
            if "entry" in letter:
                yield _dead(letter["id"], Death.UNREADABLE, _STILL_UNREADABLE)


def rehearse(
    candidates: Sequence[Candidate], settings: Settings, *, now_us: int
) -> list[Rehearsed]:
    """Render and shape events of any triggers that are configured; in no order.

    Args:
        candidates: Their triggers are configured.
        settings: Of today.
        now_us: Redis' clock.
    """
    groups: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.trigger].append(candidate)
    return [
        result
        for name, group in groups.items()
        for first in range(0, len(group), _GROUP)
        for result in _group(
            group[first : first + _GROUP], settings.triggers[name], settings, now_us
        )
    ]


def _group(
    group: Sequence[Candidate], trigger: Trigger, settings: Settings, now_us: int
) -> Iterator[Rehearsed]:
    try:
        for candidate, result in _rendered(group, trigger, settings):
            yield _judged(candidate, result, trigger, settings, now_us)
    except TemplateBroken as error:
        for candidate in group:
            yield _dead(candidate.name, Death.TEMPLATE_ERROR, error.message)


def _rendered(
    group: Sequence[Candidate], trigger: Trigger, settings: Settings
) -> Iterator[tuple[Candidate, Result | None]]:
    """Yield results; None for an event of which, tried first, the process dies."""
    bundle = TemplateFolder(settings.templates_folder).bundle(trigger.template)
    left = list(group)
    while left:
        results = render_isolated(
            bundle,
            [Row(candidate.profile, trigger.settings) for candidate in left],
            seconds=RENDER_SECONDS,
            memory_bytes=RENDER_MEMORY_BYTES,
        )
        if not isinstance(results, DiedAt):
            yield from zip(left, results, strict=True)
            return
        yield from zip(left, results.results, strict=False)
        left = left[results.row :]
        if not results.row:
            yield left.pop(0), None


def _judged(
    candidate: Candidate,
    result: Result | None,
    trigger: Trigger,
    settings: Settings,
    now_us: int,
) -> Rehearsed:
    match result:
        case None:
            return _dead(candidate.name, Death.KILLED_WORKER, _DIED)
        case Asserted(message):
            return Rehearsed(candidate.name, "skipped", Skip.ASSERTED.value, message)
        case TemplateFailed(message, file, line):
            text = f"{file}:{line}: {message}" if file else message
            return _dead(candidate.name, Death.TEMPLATE_ERROR, text)
        case Rendered(body):
            return replace(_shaped(candidate, body, trigger, settings, now_us), body=body)
        case _ as never:
            assert_never(never)


def _shaped(
    candidate: Candidate, body: bytes, trigger: Trigger, settings: Settings, now_us: int
) -> Rehearsed:
    api = api_of(settings, trigger)
    occasion = occasion_of(candidate.header, trigger, settings, now_us=now_us)
    match api.shape(orjson.loads(body), occasion):
        case Shaped() as shaped:
            return Rehearsed(candidate.name, "sent", shaped=shaped)
        case NotSendable(Skip() as reason, message):
            return Rehearsed(candidate.name, "skipped", reason.value, message)
        case NotSendable(reason, message):
            return Rehearsed(candidate.name, "dead", reason.value, message)


def occasion_of(header: Header, trigger: Trigger, settings: Settings, *, now_us: int) -> Occasion:
    """Return for which event a body is shaped."""
    return Occasion(
        url=settings.url_of(trigger),
        audience=header.audience,
        direction=header.direction,
        time_us=header.time_us,
        now_us=now_us,
        skip_hook=header.skip_hook,
        repair=header.repair,
        audience_attribute=str(trigger.settings[AUDIENCE_ATTRIBUTE]),
        phone_region=settings.delivery.phone_region,
        audience_flag_prefix=trigger.audience_flag_prefix,
    )


def _dead(name: str, reason: Death, message: str) -> Rehearsed:
    return Rehearsed(name, "dead", reason.value, message)
