"""Tries each trigger's template on a sample, and holds what it yields against the trigger's path.

An error is what would make every delivery of the trigger fail; a warning is worth a look: a shipped
sample can't know what a template needs, so its failing proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Protocol, assert_never

import orjson

from worker.adapters.isolated_renderer import Killed, render_isolated
from worker.adapters.renderer import (
    Asserted,
    Rendered,
    Renderer,
    Result,
    Row,
    Template,
    TemplateFailed,
)
from worker.adapters.template_samples import load_profiles, sample_profile
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.contract.words import Death, Direction
from worker.destinations.api import NotSendable, Occasion, Shaped
from worker.destinations.insider_shape import overwrites
from worker.destinations.normalise import instant
from worker.destinations.registry import api_named, path_misfit
from worker.errors import TemplateBroken, UsageWrong

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNTIMED: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Of a sample whose event has no time, as a change has none; any would do."""

_RENDER_SECONDS: Final = 20.0
_RENDER_BYTES: Final = 1_000_000_000
_KILLED: Final = {
    "time": f"{{}} does not come to an end within {_RENDER_SECONDS:g} s",
    "crash": "{} kills the process that renders it: it refers to itself or wants too much memory",
}

_UNIDENTIFIED: Final = (
    "{} does not send the identity field `{}` as an identifier: two profiles here may be one"
    " person there, or the contrary"
)
_LEFT_OUT: Final = "{} sends what can't be right and is left out: {}"
_OVERWRITES: Final = (
    "{} overwrites the list of audiences on exit; whether an empty list empties it is not known:"
    " send exits to /api/user/v1/attribute/delete"
)

Severity = Literal["error", "warning"]
Weighed = tuple[Severity, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one trigger that its owner should know."""

    trigger: str
    severity: Severity
    message: str


class RendersSamples(Protocol):
    """What a `Renderer` can do; also one that renders in a process of its own."""

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        ...

    def render(
        self, template: Template, rows: Sequence[Row], settings: Mapping[str, Any]
    ) -> Sequence[Result] | Killed:
        """Render events; one result each."""
        ...


class IsolatedSamples:
    """Renders in a throw-away process: a template that nobody has tried may kill it."""

    def __init__(self, templates_folder: Path) -> None:
        self._folder = templates_folder
        self._renderer = Renderer(templates_folder)

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        return self._renderer.load(name)

    def render(
        self, template: Template, rows: Sequence[Row], settings: Mapping[str, Any]
    ) -> Sequence[Result] | Killed:
        """Render events; one result each."""
        return render_isolated(
            self._folder,
            template.name,
            rows,
            settings,
            seconds=_RENDER_SECONDS,
            memory_bytes=_RENDER_BYTES,
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    profile: dict[str, Any]
    is_own: bool

    def doubt(self, message: str) -> Weighed:
        """Return a problem with its weight: only the trigger's own sample has to succeed."""
        if self.is_own:
            return "error", message
        return "warning", f"{message} (with the shipped sample; `sample` names a better one)"


def check_triggers(settings: Settings) -> list[Finding]:
    """Check all triggers of a configuration."""
    renderer = IsolatedSamples(settings.templates_folder)
    return [
        finding
        for trigger in settings.triggers.values()
        for finding in check_trigger(settings, trigger, renderer)
    ]


def check_trigger(settings: Settings, trigger: Trigger, renderer: RendersSamples) -> list[Finding]:
    """Render a sample of the trigger's direction, shape it, and say what is wrong with it."""
    try:
        template = renderer.load(trigger.template)
        sample = _sample(settings, trigger)
        row = Row(orjson.dumps(sample.profile))
        results = renderer.render(template, [row], trigger.settings)
    except TemplateBroken as error:
        return [Finding(trigger.name, "error", _placed(error))]
    except UsageWrong as error:
        return [Finding(trigger.name, "error", error.message)]
    result = results if isinstance(results, Killed) else results[0]
    return [
        Finding(trigger.name, severity, message)
        for severity, message in _judge(settings, trigger, sample, result)
    ]


def _placed(error: TemplateBroken) -> str:
    place = f"{error.file}:{error.line}:{error.column}"
    return f"{place}: {error.message}" if error.line else error.message


def _sample(settings: Settings, trigger: Trigger) -> _Sample:
    path = settings.sample_path(trigger)
    if path is None:
        return _Sample(sample_profile(Direction(trigger.on)), is_own=False)
    for profile in load_profiles(path):
        if _entry(profile).get("event") == trigger.on:
            return _Sample(profile, is_own=True)
    raise UsageWrong(f"{path}: holds no {trigger.on} event, which this trigger is for.")


def _entry(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    entry = profile["segment_events"][0]
    return entry if isinstance(entry, dict) else {}


def _judge(
    settings: Settings, trigger: Trigger, sample: _Sample, result: Result | Killed
) -> list[Weighed]:
    match result:
        case Killed(cause=cause):
            return [("error", _KILLED[cause].format(trigger.template))]
        case Asserted(message):
            return [sample.doubt(f"{trigger.template}: an assert fails: {message}")]
        case TemplateFailed(message, file, line):
            place = f"{file}:{line}" if line else file or trigger.template
            return [sample.doubt(f"{place}: {message}")]
        case Rendered(body):
            return _judge_body(settings, trigger, sample, orjson.loads(body))
        case _ as never:
            assert_never(never)


def _judge_body(settings: Settings, trigger: Trigger, sample: _Sample, body: Any) -> list[Weighed]:
    name = settings.destinations[trigger.destination].api
    misfit = path_misfit(name, body, trigger.url)
    if misfit:
        return [("error", f"{trigger.template} does not fit {trigger.url}: {misfit}")]
    findings: list[Weighed] = []
    if _is_unidentified(settings, name, sample, body):
        findings.append(("warning", _UNIDENTIFIED.format(trigger.template, _identity(settings))))
    match api_named(name).shape(body, _occasion(settings, trigger, sample)):
        case NotSendable(Death(), message):
            findings.append(sample.doubt(f"{trigger.template} yields nothing valid: {message}"))
        case NotSendable(_, message):
            findings.append(("warning", f"{trigger.template} yields nothing to send: {message}"))
        case Shaped(users, _, dropped):
            if dropped:
                names = ", ".join(dict.fromkeys(dropped))
                findings.append(("warning", _LEFT_OUT.format(trigger.template, names)))
            if name == "insider" and _overwrites_on_exit(trigger, users):
                findings.append(("warning", _OVERWRITES.format(trigger.template)))
    return findings


def _occasion(settings: Settings, trigger: Trigger, sample: _Sample) -> Occasion:
    entry = _entry(sample.profile)
    moment = instant(entry.get(trigger.on)) or _UNTIMED
    time_us = (moment - _EPOCH) // timedelta(microseconds=1)
    return Occasion(
        url=settings.url_of(trigger),
        audience=str(entry.get("slug") or "sample"),
        direction=Direction(trigger.on),
        time_us=time_us,
        now_us=time_us,
        skip_hook=False,
        repair=False,
        audience_attribute=str(trigger.settings[AUDIENCE_ATTRIBUTE]),
        phone_region=settings.delivery.phone_region,
    )


def _identity(settings: Settings) -> str:
    return settings.delivery.identity


def _is_unidentified(settings: Settings, api: str, sample: _Sample, body: Any) -> bool:
    identity = _identity(settings)
    keys = ("_id", "payload_id") if identity == "id" else (identity,)
    value = next((sample.profile[key] for key in keys if sample.profile.get(key)), None)
    return value is not None and not api_named(api).identifies(body, str(value))


def _overwrites_on_exit(trigger: Trigger, users: Sequence[dict[str, Any]]) -> bool:
    attribute = trigger.settings[AUDIENCE_ATTRIBUTE]
    return trigger.on == "exit" and any(
        overwrites(user) and attribute in user.get("attributes", {}).get("custom", {})
        for user in users
    )
