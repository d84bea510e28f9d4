"""Loads what all processes of a node share, before they are forked: templates and routes.

Each kind of trigger is tried once, in a copy of this process: a template that nobody has tried may
end the one that renders it, and then only its own triggers are stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from worker.batch.route import Route
from worker.checks.triggers import check_trigger, check_without_ids, kind_of
from worker.contract.settings import Settings, Trigger
from worker.contract.settings.http import TemplateChoice
from worker.destinations.registry import api_of, rules_of
from worker.errors import TemplateBroken, WeMustAct
from worker.jsonnet.rendered import Template
from worker.jsonnet.renderer import Renderer
from worker.node.process.apart import answers_apart

_KILLS: Final = (
    "{}: the process that rendered a sample with it ended: it does not come to an end, or wants too"
    " much memory; `segrelay config check` says more"
)
LOG: Final = structlog.get_logger()

Ask = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""A function that calls questions and returns their answers, None where there is none."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The renderer and the routes, which are loaded once for a node.

    Args:
        routes: By destination and trigger.
    """

    renderer: Renderer
    routes: Mapping[str, Mapping[str, Route]]

    @property
    def stopped(self) -> frozenset[str]:
        """Return the triggers that can't be worked on."""
        routes = (route for routes in self.routes.values() for route in routes.values())
        return frozenset(route.trigger for route in routes if route.stopped)


def load(settings: Settings, ask: Ask = answers_apart) -> Loaded:
    """Load and try the template of each trigger; a broken one stops its trigger and no other."""
    renderer = Renderer(settings.templates_folder)
    names = dict.fromkeys(map(settings.template_of, settings.triggers.values()))
    templates = {name: _template(renderer, name) for name in names}
    fit = [each for each in settings.triggers.values() if templates[settings.template_of(each)][0]]
    problems = _problems(settings, fit, renderer, ask)
    routes: dict[str, dict[str, Route]] = {name: {} for name in settings.destinations}
    for trigger in settings.triggers.values():
        template, broken = templates[settings.template_of(trigger)]
        envelope, torn = _envelope(settings, trigger, renderer)
        stopped = broken or torn or problems.get(trigger.name, "")
        route = replace(_route(settings, trigger, template, stopped), envelope=envelope)
        routes[trigger.destination][trigger.name] = route
        if route.stopped:
            LOG.error("trigger.stopped", trigger=trigger.name, reason=route.stopped)
    return Loaded(renderer, routes)


def warn_without_ids(
    settings: Settings, loaded: Loaded, identified: Collection[str], ask: Ask = answers_apart
) -> None:
    """Log which triggers can't deliver events without an id, and may get some."""
    fit = {n: each for n, each in settings.triggers.items() if n not in loaded.stopped}
    able = settings.model_copy(update={"triggers": fit})

    def found() -> list[tuple[str, str]]:
        findings = check_without_ids(able, identified, datetime.now(UTC), loaded.renderer)
        return [(finding.trigger, finding.message) for finding in findings]

    for trigger, reason in ask([found])[0] or ():
        LOG.warning("trigger.needs_id", trigger=trigger, reason=reason)


def _envelope(
    settings: Settings, trigger: Trigger, renderer: Renderer
) -> tuple[Template | None, str]:
    """Return the template of whole requests, if there is one, or why it does not load."""
    envelope = settings.http_of(trigger).envelope
    if not isinstance(envelope, TemplateChoice):
        return None, ""
    return _template(renderer, envelope.template)


def _template(renderer: Renderer, name: str) -> tuple[Template | None, str]:
    """Return a template, or why it does not load."""
    try:
        return renderer.load(name), ""
    except TemplateBroken as error:
        return None, error.message


def _problems(
    settings: Settings, triggers: Sequence[Trigger], renderer: Renderer, ask: Ask
) -> dict[str, str]:
    """Return the problems of triggers whose template loads, by the triggers' names."""
    kinds: dict[str, list[Trigger]] = {}
    for trigger in triggers:
        kinds.setdefault(kind_of(trigger), []).append(trigger)
    tried = [each[0] for each in kinds.values()]
    answers = ask([lambda t=trigger: _try(settings, t, renderer) for trigger in tried])  # type: ignore[misc]
    problems: dict[str, str] = {}
    for same, answer in zip(kinds.values(), answers, strict=True):
        problem, doubted = answer or (_KILLS.format(same[0].main_template), {})
        renderer.distrust(doubted)
        problems |= {trigger.name: problem for trigger in same if problem}
    return problems


def _try(settings: Settings, trigger: Trigger, renderer: Renderer) -> tuple[str, dict[str, int]]:
    """Return the problems of a trigger, and the compiled forms that differ from the engine."""
    findings = check_trigger(settings, trigger, renderer, datetime.now(UTC))
    errors = [finding.message for finding in findings if finding.severity == "error"]
    return "; ".join(errors), renderer.doubted


def _route(settings: Settings, trigger: Trigger, template: Template | None, stopped: str) -> Route:
    destination = settings.destinations[trigger.destination]
    headers: dict[str, str] = {}
    params: dict[str, str] = {}
    authorization = settings.authorization_of(destination)
    try:
        settings.reveal(trigger)
        if authorization:
            headers = authorization.revealed_headers()
            params = authorization.revealed_parameters()
    except WeMustAct as error:
        stopped = stopped or error.message
    return Route(
        trigger=trigger.name,
        api=api_of(settings, trigger),
        api_name=destination.api,
        template=template,
        rules=rules_of(settings, trigger),
        headers=headers,
        params=params,
        settings=trigger.settings,
        on_ambiguous=destination.on_ambiguous,
        engine=trigger.engine,
        stopped=stopped,
        token_of=authorization.name if authorization and authorization.uses_token else "",
        tls=authorization.tls if authorization else None,
    )
