"""Sandbox runs: what would become of events now, without sending anything.

Rendering happens in a throw-away process: an event that killed a worker may be among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, assert_never

import orjson

from segrelay.jsonnet.files import Bundle, TemplateFolder
from segrelay.jsonnet.isolated import DiedAt, render_isolated
from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    Row,
    Template,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.batch.pack import row_of
from segrelay.worker.checks.samples import sample_row
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.http import TemplateChoice
from segrelay.worker.contract.words import Death, Direction, Skip
from segrelay.worker.core.compact import parsed
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.destinations.registry import api_of, rules_of

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


class SampleRenderer(Protocol):
    """Renders rows: a `Renderer`, or one that does it in a process of its own."""

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result | Killed]:
        """Render events; one result each."""


class IsolatedSampleRenderer:
    """Renders in a process of its own."""

    def __init__(self, templates_folder: Path) -> None:
        self._renderer = Renderer(templates_folder, LYTEMPLATES, compiles=False)

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        return self._renderer.load(name)

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result | Killed]:
        """Render events; one result each."""
        return render_apart(self._renderer.bundle_of(template), rows)


_KILLED: Final = "Rendering it, alone, ends or hangs the process."


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event for one trigger.

    Args:
        name: The result of the preview has it too.
        profile: JSON text, with exactly one entry in `segment_events`.
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
        request: The body that would be sent.
        has_parts: Templates make URL or headers too, and were rendered together.
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
    def why_not(self) -> Death | Skip | None:
        """Return why the event would not be sent; None = it would."""
        match self.result:
            case Killed():
                return Death.KILLED_WORKER
            case Asserted():
                return Skip.ASSERTED
            case TemplateFailed():
                return Death.TEMPLATE_ERROR
            case Rendered() | None:
                return self.shaping.reason if isinstance(self.shaping, NotSendable) else None
            case _ as never:
                assert_never(never)

    @property
    def fate(self) -> Literal["sent", "skipped", "dead"]:
        """Return the outcome that the event would have."""
        if self.why_not is None:
            return "sent"
        return "skipped" if isinstance(self.why_not, Skip) else "dead"

    @property
    def reason(self) -> str:
        """Return the word for why the event would not be sent; "" = it would."""
        return self.why_not.value if self.why_not else ""

    @property
    def message(self) -> str:
        """Say why the event would not be sent, without the place in the template."""
        match self.result:
            case Killed():
                return _KILLED
            case Asserted(message) | TemplateFailed(message):
                return message
            case Rendered() | None:
                return self.shaping.message if isinstance(self.shaping, NotSendable) else ""
            case _ as never:
                assert_never(never)

    @property
    def located_message(self) -> str:
        """Say why the event would not be sent, with the file and the line if they are known."""
        match self.result:
            case TemplateFailed(message, file, line) if line:
                return f"{file}:{line}: {message}"
            case _:
                return self.message

    @property
    def safe_message(self) -> str:
        """Return the message as it may be printed where no profile field is shown."""
        return normalise_message(self.located_message)


def preview(candidates: Sequence[Candidate], settings: Settings, *, now_us: int) -> list[Previewed]:
    """Render and shape events of any triggers that are configured."""
    found: dict[int, Previewed] = {}
    for name in dict.fromkeys(candidate.trigger for candidate in candidates):
        numbers = [number for number, one in enumerate(candidates) if one.trigger == name]
        group = [candidates[number] for number in numbers]
        results = _of_trigger(group, settings.triggers[name], settings, now_us)
        found.update(zip(numbers, results, strict=True))
    return [found[number] for number in range(len(candidates))]


def _of_trigger(
    group: Sequence[Candidate], trigger: Trigger, settings: Settings, now_us: int
) -> list[Previewed]:
    rows = [Row(one.profile, trigger.settings, one.header.time_us) for one in group]
    results: Sequence[Result | Killed]
    try:
        bundle = TemplateFolder(settings.templates_folder, LYTEMPLATES).bundle(
            settings.template_of(trigger)
        )
        results = render_apart(bundle, rows)
    except TemplateBroken as error:
        results = [TemplateFailed(error.message, "", 0)] * len(rows)
    return [
        shape_result(one.name, result, one.header, trigger, settings, now_us=now_us)
        for one, result in zip(group, results, strict=True)
    ]


def shape_result(
    name: str,
    result: Result | Killed,
    header: Header,
    trigger: Trigger,
    settings: Settings,
    *,
    now_us: int,
) -> Previewed:
    """Shape what was rendered as a delivery of a trigger."""
    if not isinstance(result, Rendered):
        return Previewed(name, result)
    api = api_of(settings, trigger)
    rules = rules_of(settings, trigger)
    shaping = api.shape(parsed(result.body), header, rules, now_us)
    has_parts = settings.template_of(trigger) != trigger.template
    if isinstance(shaping, NotSendable):
        return Previewed(name, result, shaping, has_parts=has_parts)
    users = [orjson.dumps(user) for user in shaping.users]
    body = api.assemble(users, shaping.root)
    envelope = settings.http_of(trigger).envelope
    if isinstance(envelope, TemplateChoice):
        folder = TemplateFolder(settings.templates_folder, LYTEMPLATES)
        whole = _in_envelope(folder, envelope.template, body, trigger)
        if isinstance(whole, NotSendable):
            return Previewed(name, result, whole, has_parts=has_parts)
        body = whole
    return Previewed(name, result, shaping, body, has_parts)


def _in_envelope(
    folder: TemplateFolder, template: str, array: bytes, trigger: Trigger
) -> bytes | NotSendable:
    """Return the whole body that an envelope's template makes, or why it makes none."""
    try:
        [found] = render_apart(folder.bundle(template), [row_of(array, trigger.settings)])
    except TemplateBroken as error:
        return NotSendable(Death.TEMPLATE_ERROR, error.message)
    match found:
        case Rendered(body):
            return body
        case Asserted(message) | TemplateFailed(message):
            return NotSendable(Death.TEMPLATE_ERROR, f"{template}: {message}")
        case _:
            return NotSendable(Death.TEMPLATE_ERROR, f"{template} does not come to an end")


def preview_template(
    candidates: Sequence[Candidate],
    trigger: Trigger,
    settings: Settings,
    *,
    template: str,
    folder: Path | None = None,
    now_us: int,
) -> list[Previewed]:
    """Preview events as deliveries of a trigger, with any template of any folder."""
    changed = {
        "templates_folder": folder or settings.templates_folder,
        "triggers": {trigger.name: trigger.model_copy(update={"template": template})},
    }
    own = [replace(one, trigger=trigger.name) for one in candidates]
    return preview(own, settings.model_copy(update=changed), now_us=now_us)


def preview_rendering(
    folder: Path,
    template: str,
    profiles: Sequence[tuple[str, bytes]],
    settings: Mapping[str, Any],
) -> list[Previewed]:
    """Render named profiles with a template, without a trigger: nothing is shaped.

    Raises:
        TemplateBroken: The template does not load.
    """
    rows = [sample_row(text, settings) for _, text in profiles]
    results = render_apart(TemplateFolder(folder, LYTEMPLATES).bundle(template), rows)
    return [Previewed(name, one) for (name, _), one in zip(profiles, results, strict=True)]


def sample_header(audience: str, direction: Direction, time_us: int) -> Header:
    """Return the header of a sample, which nobody sent."""
    return Header(
        b"", audience, direction, time_us, state=False, skip_hook=False, repair=False, accepted_ms=0
    )
