"""The pages of templates: versions at work, tests, source, and a payload tried out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from segrelay.ops.console.app import Asked, Console, Page
from segrelay.ops.status.standing import TriggerStanding
from segrelay.ops.templates.events import from_payload
from segrelay.ops.templates.render import changes_of_previewed
from segrelay.ops.templates.testing import cases_of, run
from segrelay.ops.templates.workspace import names_in
from segrelay.worker.checks.preview import preview
from segrelay.worker.contract.settings import Trigger
from segrelay.worker.errors import UsageWrong

_LONGEST: Final = 200_000


@dataclass(frozen=True, slots=True)
class TemplateLine:
    """A template with the triggers that use it.

    Args:
        triggers: The standing of each trigger, by name.
    """

    name: str
    triggers: Mapping[str, TriggerStanding]

    @property
    def versions(self) -> list[str]:
        """Return the versions at work."""
        return sorted({each for one in self.triggers.values() for each in one.versions})

    @property
    def refused(self) -> str:
        """Return why a change of it is not used; "" = it is."""
        return next((one.refused for one in self.triggers.values() if one.refused), "")

    @property
    def trouble(self) -> tuple[bool, bool, int]:
        """Return how much it needs a look: broken, stopped, and with how many dead letters."""
        stops = any(one.condition.stops for one in self.triggers.values())
        dead = sum(one.counts.dead for one in self.triggers.values())
        return bool(self.refused), stops, dead

    @property
    def engine_share(self) -> float | None:
        """Return the share of the last events that needed the Jsonnet engine; None = no events."""
        uses = [one.engine_use for one in self.triggers.values()]
        events = sum(one.events for one in uses)
        return sum(one.asked for one in uses) / events if events else None


def templates(console: Console, asked: Asked) -> Page:
    """Show all templates with their triggers and versions."""
    del asked
    return Page(
        "templates.html",
        "Templates",
        {"templates": sorted(_lines(console), key=lambda one: one.trouble, reverse=True)},
    )


def _lines(console: Console) -> Iterator[TemplateLine]:
    settings, standing = console.settings, console.look.standing()
    used = {one.main_template for one in settings.triggers.values()}
    for name in sorted({*names_in(settings.templates_folder), *used}):
        triggers = {
            one.name: standing.triggers[one.name]
            for one in settings.triggers.values()
            if one.main_template == name and one.name in standing.triggers
        }
        yield TemplateLine(name, triggers)


def template(console: Console, asked: Asked) -> Page:
    """Show one template: its source, its tests if asked for, and what it makes of a payload."""
    name = asked.path["name"]
    line = next((one for one in _lines(console) if one.name == name), None)
    if line is None:
        raise UsageWrong("There is no such template.")
    settings = console.settings
    tried: list[Mapping[str, Any]] = []
    wrong = ""
    payload = asked.given("payload")[:_LONGEST]
    trigger = settings.triggers.get(asked.given("trigger"))
    if asked.is_post and trigger:
        try:
            tried = list(_try(console, trigger, payload))
        except UsageWrong as error:
            wrong = error.message
    folder, shows_tests = settings.templates_folder, asked.get("tests") == "1"
    source = console.look.template_text(name)
    values = {
        "line": line,
        "source": "The file can't be read." if source is None else source[:_LONGEST],
        "tests": run(folder, name, cases_of(folder, name)) if shows_tests else None,
        "payload": payload or _EXAMPLE,
        "tried": tried,
        "wrong": wrong,
        "chosen": asked.given("trigger"),
    }
    return Page("template.html", f"Template {name}", values)


_EXAMPLE: Final = """{
  "data": {
    "email": "ann@example.com",
    "segment_events": [{"slug": "vip", "event": "enter", "enter": "2026-11-24T10:00:00Z"}]
  }
}"""


def _try(console: Console, trigger: Trigger, text: str) -> Iterator[Mapping[str, Any]]:
    """Yield what a trigger would send for each event of a payload that somebody has typed."""
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"The payload is not JSON: {error}.") from None
    values = payload if isinstance(payload, list) else [payload]
    found = from_payload("the payload", values, trigger, console.settings)
    if not found:
        raise UsageWrong(f"No event in it is an {trigger.on}, which {trigger.name} wants.")
    for one in preview(found, console.settings):
        yield {"previewed": one, "changes": changes_of_previewed(one)}
