"""Keeps the routes of a process up with the template files: a change needs no restart.

Before a drain the folder is looked at, at most once a second. A template that changed is checked
first, in a process of its own. If it is broken, the one before is kept, and the log says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from worker.batch.route import Route
from worker.checks.rehearsal import IsolatedSampleRenderer
from worker.checks.triggers import check_trigger, fails_where_another_renders
from worker.contract.settings import Settings, Trigger
from worker.errors import TemplateBroken, WeMustAct
from worker.jsonnet.files import TemplateFolder
from worker.jsonnet.renderer import Renderer
from worker.jsonnet.used_files import FolderStamp, stamp_of
from worker.node.shared.node import TemplateUse

EVERY_SECONDS: Final = 1.0
AT_ONCE_SECONDS: Final = 5.0
"""Seconds for checking templates before one drain; those left are checked before the next."""
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Upkeep:
    """The routes of one process, kept up with the template files.

    Args:
        routes: By destination and trigger, as this process works with them now.
        clock: In seconds; only differences count.
    """

    settings: Settings
    renderer: Renderer
    routes: dict[str, dict[str, Route]]
    clock: Callable[[], float] = time.monotonic
    refused: dict[str, str] = field(default_factory=dict)
    _next_at: float = float("-inf")
    _stamp: FolderStamp | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        renderer: Renderer,
        routes: Mapping[str, Mapping[str, Route]],
    ) -> Upkeep:
        """Return the upkeep of routes that were loaded at the start."""
        return cls(settings, renderer, {name: dict(each) for name, each in routes.items()})

    @property
    def versions(self) -> dict[str, str]:
        """Return the content hashes of the triggers' templates, where a trigger has one."""
        return {
            name: route.template.content_hash
            for routes in self.routes.values()
            for name, route in routes.items()
            if route.template is not None
        }

    @property
    def stopped(self) -> frozenset[str]:
        """Return the triggers that this process can't work on."""
        return frozenset(
            name
            for routes in self.routes.values()
            for name, route in routes.items()
            if route.stopped
        )

    def template_use(self) -> TemplateUse:
        """Return this process' report of its templates, for its node."""
        return TemplateUse(
            self.versions, dict(self.refused), self.stopped, self.renderer.engine_use
        )

    def look(self) -> None:
        """Look at the templates folder if it is time, and adopt valid templates that changed."""
        now = self.clock()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_SECONDS
        stamp = stamp_of(self.settings.templates_folder)
        if stamp == self._stamp:
            return
        self._stamp = stamp if self._take_over(now + AT_ONCE_SECONDS) else None

    def _take_over(self, until: float) -> bool:
        """Adopt all changed templates that are valid; return whether all triggers were checked."""
        found = _Versions(TemplateFolder(self.settings.templates_folder))
        for trigger in self.settings.triggers.values():
            if self.clock() > until:
                return False
            if not self._follow(trigger, found):
                return False
        return True

    def _follow(self, trigger: Trigger, found: _Versions) -> bool:
        """Adopt a trigger's template if it changed; return False if it changed again meanwhile."""
        route = self.routes[trigger.destination][trigger.name]
        version = found.of(self.settings.template_of(trigger))
        if isinstance(version, TemplateBroken):
            self._refuse(trigger, route, version.message)
            return True
        if route.template is not None and route.template.content_hash == version:
            self.refused.pop(trigger.name, None)
            return True
        problem = self._problem(trigger, route)
        if problem:
            self._refuse(trigger, route, problem)
            return True
        template = self.renderer.load(self.settings.template_of(trigger))
        if template.content_hash != version:
            return False
        self.routes[trigger.destination][trigger.name] = replace(
            route, template=template, stopped=self._unsendable(trigger)
        )
        self.refused.pop(trigger.name, None)
        before = route.template.content_hash if route.template else ""
        LOG.info("template.changed", trigger=trigger.name, version=version, before=before)
        return True

    def _problem(self, trigger: Trigger, route: Route) -> str:
        samples, now = IsolatedSampleRenderer(self.settings.templates_folder), datetime.now(UTC)
        findings = check_trigger(self.settings, trigger, samples, now)
        errors = "; ".join(one.message for one in findings if one.severity == "error")
        before = route.template
        if errors or not findings or before is None or route.stopped:
            return errors
        return fails_where_another_renders(
            self.settings, trigger, lambda rows: self.renderer.render(before, rows), samples, now
        )

    def _refuse(self, trigger: Trigger, route: Route, problem: str) -> None:
        """Keep a trigger's former template; a trigger that had none stays stopped."""
        if self.refused.get(trigger.name) == problem:
            return
        self.refused[trigger.name] = problem
        if route.template is None or route.stopped:
            stopped = replace(route, stopped=problem)
            self.routes[trigger.destination][trigger.name] = stopped
            return
        kept = route.template.content_hash
        LOG.error("template.refused", trigger=trigger.name, reason=problem, kept=kept)

    def _unsendable(self, trigger: Trigger) -> str:
        """Say why a trigger can't send even with a valid template: a secret is not set."""
        try:
            self.settings.reveal(trigger)
        except WeMustAct as error:
            return error.message
        return ""


@dataclass(slots=True)
class _Versions:
    """Content hashes of the templates of a folder; each template is read once."""

    folder: TemplateFolder
    _known: dict[str, str | TemplateBroken] = field(default_factory=dict)

    def of(self, template: str) -> str | TemplateBroken:
        """Return the content hash of a template, or what is wrong with it."""
        if template not in self._known:
            try:
                self._known[template] = self.folder.bundle(template).content_hash
            except TemplateBroken as error:
                self._known[template] = error
        return self._known[template]
