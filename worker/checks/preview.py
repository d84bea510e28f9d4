"""Previews: what would become of samples or events now, without sending anything.

Rendering happens in a throw-away process: an event that killed a worker may be among them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, assert_never

import orjson

from segrelay.jsonnet.files import Bundle, TemplateFolder
from segrelay.jsonnet.isolated import DiedAt, render_isolated
from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    Row,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES, SAMPLES_FOLDER
from segrelay.worker.batch.pack import row_of
from segrelay.worker.contract.events import Header, has_id, with_id
from segrelay.worker.contract.printable import read_json_values
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.http import TemplateChoice
from segrelay.worker.contract.words import Death, Direction, Skip
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, Shaped, parsed
from segrelay.worker.destinations.registry import api_of, rules_of
from segrelay.worker.errors import UsageWrong

ANY_ID: Final = "0" * 32
"""An id of an audience, to see whether an event without one fails for want of it."""
_WRITTEN_AT: Final = datetime(2026, 11, 8, 9, 31, tzinfo=UTC)
"""The moment at which the shipped samples were written: no time in them is later."""
_ANY_TIME_US: Final = 1_767_225_600_000_000
_TIME: Final = re.compile(r"(?<=\")(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?=(?:\.\d+)?Z\")")


def fresh_sample(direction: Direction, now: datetime) -> str:
    """Return a shipped sample's text as if it had been written now.

    Insider takes no event of its customers that is older than three months.
    """
    shift = now.replace(microsecond=0) - _WRITTEN_AT
    text = (SAMPLES_FOLDER / f"{direction.value}.json").read_text("utf-8")
    return _TIME.sub(lambda found: (datetime.fromisoformat(found[1]) + shift).isoformat(), text)


def sample_profile(direction: Direction, now: datetime) -> dict[str, Any]:
    """Return the shipped sample's profile, with one entry of that direction in `segment_events`."""
    return profiles_of(orjson.loads(fresh_sample(direction, now)))[0]


def profile_for(settings: Settings, trigger: Trigger, now: datetime) -> dict[str, Any]:
    """Return the profile that a trigger is tried on: its own sample, else the shipped one.

    Raises:
        UsageWrong: Its own can't be read, or has no event of its direction.
    """
    if not trigger.sample:
        return sample_profile(Direction(trigger.on), now)
    path = settings.folder / trigger.sample
    for profile in load_profiles(path):
        if entry_of(profile).get("event") == trigger.on:
            return profile
    raise UsageWrong(f"{path}: holds no {trigger.on} event, which this trigger is for.")


def entry_of(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one segment event of a profile."""
    entry = profile["segment_events"][0]
    return entry if isinstance(entry, dict) else {}


def sample_row(profile: Mapping[str, Any], settings: Mapping[str, Any]) -> Row:
    """Return a sample as a row to render.

    One whose event has no time, such as a change, gets any: a delivery always has one.
    """
    entry = next(iter(profile.get("segment_events") or ()), None)
    is_timed = isinstance(entry, dict) and entry.get(str(entry.get("event")))
    text = orjson.dumps(dict(profile))
    return Row(text, settings, 0 if is_timed else _ANY_TIME_US)


def load_profiles(path: Path) -> list[dict[str, Any]]:
    """Read payloads, wrapped or not, as profiles with exactly one entry in `segment_events` each.

    Raises:
        UsageWrong: The file can't be read, or holds no payload.
    """
    profiles = [one for payload in read_json_values(path) for one in profiles_of(payload)]
    if not profiles:
        raise UsageWrong(
            f"{path}: holds no payload; expected is an object with segment_events, or with `data`"
            " that has them."
        )
    return profiles


def profiles_of(payload: object) -> list[dict[str, Any]]:
    """Return a profile for each segment event of a payload; none where it is no payload."""
    if not isinstance(payload, dict):
        return []
    wrapped = payload.get("data")
    profile = wrapped if isinstance(wrapped, dict) else payload
    events = profile.get("segment_events")
    if not isinstance(events, list):
        return []
    if "_id" not in profile and wrapped is profile and isinstance(payload.get("id"), str):
        profile = {**profile, "payload_id": payload["id"]}
    return [{**profile, "segment_events": [event]} for event in events]


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the owner of a template or trigger should know.

    Args:
        severity: An error makes a template unfit and stops its triggers; a warning is worth a look.
        message: The problem and what to do; begins with its location where there is one.
        trigger: The trigger's name; "" where it is about a template as such.
        file: The file's path; "" where it is about no place.
        line: The number of the line, from 1; 0 = none.
        column: The number of the column, from 1; 0 = none.
    """

    severity: Severity
    message: str
    trigger: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


def in_want_of_id(failure: str, audiences: Sequence[str]) -> str:
    """Say that events of audiences fail for want of an id, and what to do about it.

    Args:
        failure: The error message, with the place in the template where it is known.
        audiences: The slugs whose id is not known; none where it is not known which they are.
    """
    audience = audiences[0] if len(audiences) == 1 else "SLUG"
    return (
        f"{failure.removesuffix('.')}. Events that are made from rows of a backfill, sync or repair"
        " have no id in segment_events as long as no id is known for"
        f" {', '.join(audiences) or 'their audience'}, and die of this: map the id by"
        f" `segrelay audience set ID {audience}`, or give --audience-id to the backfill."
    )


RENDER_SECONDS: Final = 20.0
_RENDER_MEMORY_BYTES: Final = 1 << 30
_ROWS_A_PROCESS: Final = 100
"""The most rows that one process renders; `RENDER_SECONDS` are enough for them."""


def render_apart(bundle: Bundle, rows: Sequence[Row]) -> list[Result | Killed]:
    """Render events in throw-away processes, with one result for each event.

    After a process died, the row at which it did is the first of the next one: it is to blame if
    that one dies before any row came out.

    Raises:
        TemplateBroken: The engine does not parse the template.
    """
    results: list[Result | Killed] = []
    while len(results) < len(rows):
        part = rows[len(results) : len(results) + _ROWS_A_PROCESS]
        outcome = render_isolated(
            bundle, part, seconds=RENDER_SECONDS, memory_bytes=_RENDER_MEMORY_BYTES
        )
        if isinstance(outcome, DiedAt):
            results += outcome.results or [Killed(outcome.cause)]
        else:
            results += outcome
    return results


Render = Callable[[str, Sequence[Row]], Sequence[Result | Killed]]
"""A function that renders events with the template of a name, or raises TemplateBroken."""


def isolated_render_of(templates_folder: Path) -> Render:
    """Return a function that renders with the templates of a folder, in throw-away processes."""
    folder = TemplateFolder(templates_folder, LYTEMPLATES)
    return lambda template, rows: render_apart(folder.bundle(template), rows)


def render_of(renderer: Renderer) -> Render:
    """Return a function that renders in this process."""
    return lambda template, rows: renderer.render(renderer.load(template), rows)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event for one trigger.

    Args:
        name: The name by which its result is known.
        profile: The profile's JSON text, with exactly one entry in `segment_events`.
    """

    name: str
    trigger: str
    header: Header
    profile: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Previewed:
    """The result of a preview: the outcome that an event would have now.

    Args:
        result: The result of rendering; None where the event can't be read.
        shaping: The result of shaping the body; None where it did not render, or for no trigger.
        request: The body that would be sent; b"" where none would.
        has_parts: True if templates also make the URL or headers: all of them were rendered
            together.
    """

    name: str
    result: Result | Killed | None = field(repr=False)
    shaping: Shaped | NotSendable | None = field(default=None, repr=False)
    request: bytes = field(default=b"", repr=False)
    has_parts: bool = False

    @property
    def value(self) -> Any:
        """Return all that was rendered; None where it did not render."""
        return parsed(self.result.body) if isinstance(self.result, Rendered) else None

    @property
    def body(self) -> Any:
        """Return what was rendered as the body; None where it did not render, or there is none."""
        return (self.value or {}).get("body") if self.has_parts else self.value

    @property
    def sent(self) -> Any:
        """Return the body that would be sent, as a text if it is not JSON; None = there is none."""
        if not self.request:
            return None
        document = parsed(self.request)
        return self.request.decode(errors="replace") if document is None else document

    @property
    def target(self) -> Mapping[str, Any]:
        """Return the `url` and `headers` that templates made beside the body, if they did."""
        if self.shaped is None:
            return {}
        url = {"url": self.shaped.url} if self.shaped.url else {}
        headers = self.shaped.root.get("headers")
        return {**url, "headers": headers} if headers else url

    @property
    def shaped(self) -> Shaped | None:
        """Return the shaped body that would be sent; None where nothing would."""
        return self.shaping if isinstance(self.shaping, Shaped) else None

    @property
    def rendering(self) -> Literal["rendered", "skipped", "failed"]:
        """Name the result of rendering."""
        if isinstance(self.result, Rendered):
            return "rendered"
        return "skipped" if isinstance(self.result, Asserted) else "failed"

    @property
    def why_not(self) -> NotSendable | None:
        """Return why the event would not be sent, without the template's line; None = it would."""
        match self.result:
            case Killed():
                return NotSendable(
                    Death.KILLED_WORKER, "Rendering it, alone, ends or hangs the process."
                )
            case Asserted(message):
                return NotSendable(Skip.ASSERTED, message)
            case TemplateFailed(message):
                return NotSendable(Death.TEMPLATE_ERROR, message)
            case Rendered() | None:
                return self.shaping if isinstance(self.shaping, NotSendable) else None
            case _ as never:
                assert_never(never)

    @property
    def fate(self) -> Literal["sent", "skipped", "dead"]:
        """Return the outcome that the event would have."""
        if self.why_not is None:
            return "sent"
        return "skipped" if isinstance(self.why_not.reason, Skip) else "dead"

    @property
    def reason(self) -> str:
        """Return the word for why the event would not be sent; "" = it would."""
        return self.why_not.reason.value if self.why_not else ""

    @property
    def message(self) -> str:
        """Say why the event would not be sent, without the place in the template."""
        return self.why_not.message if self.why_not else ""

    @property
    def located_message(self) -> str:
        """Say why the event would not be sent, with the file and the line if they are known."""
        failed = self.result
        if isinstance(failed, TemplateFailed) and failed.line:
            return f"{failed.file}:{failed.line}: {failed.message}"
        return self.message

    @property
    def in_words(self) -> str:
        """Describe the result of rendering in one line."""
        is_rendered = self.rendering == "rendered"
        return self.rendering if is_rendered else f"{self.rendering}: {self.located_message}"

    @property
    def safe_message(self) -> str:
        """Return the message as it may be printed where no profile field is shown."""
        return normalise_message(self.located_message)


def preview(
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    now_us: int = 0,
    trigger: Trigger | None = None,
    template: str = "",
) -> list[Previewed]:
    """Render events, shape them, and say what would become of each.

    Args:
        candidates: The events, of any triggers that are configured.
        settings: The configuration.
        now_us: The time of the preview, in µs since 1970; 0 = now, by this machine's clock.
        trigger: The trigger that delivers all of them; None = each is delivered by its own.
        template: The template instead of that trigger's; "" = its own.
    """
    now_us = now_us or time.time_ns() // 1_000
    triggers: Mapping[str, Trigger] = settings.triggers
    if trigger:
        changed = {"template": template or trigger.template}
        triggers = {trigger.name: trigger.model_copy(update=changed)}
        candidates = [replace(one, trigger=trigger.name) for one in candidates]
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.trigger, []).append(one)
    results: dict[str, Iterator[Previewed]] = {}
    for name, group in groups.items():
        try:
            results[name] = iter(preview_as(triggers[name], group, settings, now_us=now_us))
        except TemplateBroken as error:
            failed = TemplateFailed(error.message, "", 0)
            results[name] = iter([Previewed(one.name, failed) for one in group])
    return [next(results[one.trigger]) for one in candidates]


def preview_as(
    trigger: Trigger,
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    now_us: int,
    render: Render | None = None,
) -> list[Previewed]:
    """Render events and shape them as deliveries of a trigger.

    Raises:
        TemplateBroken: The trigger's template does not load.
    """
    render = render or isolated_render_of(settings.templates_folder)
    template = settings.template_of(trigger)
    rows = [Row(one.profile, trigger.settings, one.header.time_us) for one in candidates]
    results = render(template, rows)
    api, rules = api_of(settings, trigger), rules_of(settings, trigger)
    envelope = settings.http_of(trigger).envelope
    found = []
    for one, result in zip(candidates, results, strict=True):
        shaping: Shaped | NotSendable | None = None
        body: bytes | NotSendable = b""
        if isinstance(result, Rendered):
            shaping = api.shape(parsed(result.body), one.header, rules, now_us)
        if isinstance(shaping, Shaped):
            body = api.assemble([orjson.dumps(user) for user in shaping.users], shaping.root)
            if isinstance(envelope, TemplateChoice):
                body = _in_envelope(render, envelope.template, body, trigger)
        if isinstance(body, NotSendable):
            shaping, body = body, b""
        found.append(Previewed(one.name, result, shaping, body, template != trigger.template))
    return found


def _in_envelope(
    render: Render, template: str, array: bytes, trigger: Trigger
) -> bytes | NotSendable:
    """Return the whole body that an envelope's template makes, or why it makes none."""
    try:
        [found] = render(template, [row_of(array, trigger.settings)])
    except TemplateBroken as error:
        return NotSendable(Death.TEMPLATE_ERROR, error.message)
    if isinstance(found, Rendered):
        return found.body
    said = "it does not come to an end" if isinstance(found, Killed) else found.message
    return NotSendable(Death.TEMPLATE_ERROR, f"{template}: {said}")


def failure_without_id(
    candidate: Candidate,
    trigger: Trigger,
    settings: Settings,
    *,
    now_us: int,
    render: Render | None = None,
) -> Previewed | None:
    """Return how an event fails without the id of its audience; None = not, or also with one.

    Events that are made from rows of backfills, syncs and repairs have it only where it is known.
    """
    profile = orjson.loads(candidate.profile)
    whole = profile if has_id(profile) else with_id(profile, ANY_ID)
    both = [replace(candidate, profile=orjson.dumps(one)) for one in (whole, with_id(profile, ""))]
    try:
        sent, without = preview_as(trigger, both, settings, now_us=now_us, render=render)
    except TemplateBroken:
        return None
    return without if (sent.fate, without.fate) == ("sent", "dead") else None


def preview_rendering(folder: Path, template: str, rows: Sequence[Row]) -> list[Previewed]:
    """Render rows with a template, without a trigger: nothing is shaped.

    Raises:
        TemplateBroken: The template does not load.
    """
    results = isolated_render_of(folder)(template, rows)
    return [Previewed(f"event {number}", one) for number, one in enumerate(results, 1)]


def sample_header(audience: str, direction: Direction, time_us: int) -> Header:
    """Return the header of a sample, which nobody sent."""
    return Header(
        b"", audience, direction, time_us, state=False, skip_hook=False, repair=False, accepted_ms=0
    )


Did = Literal["left out", "changed", "added"]
"""The kind of a difference between two bodies."""


def differences(old: Any, new: Any) -> Iterator[tuple[str, Did, Any, Any]]:
    """Yield the path of each scalar in which two bodies differ, how, and both values."""
    before, after = dict(leaves(old)), dict(leaves(new))
    for path in before | after:
        if path not in after:
            yield path, "left out", before[path], None
        elif path not in before:
            yield path, "added", None, after[path]
        elif type(before[path]) is not type(after[path]) or before[path] != after[path]:
            yield path, "changed", before[path], after[path]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each scalar, empty list and empty object."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, value
