"""The triggers and templates of a node: loaded before its processes are forked, and kept up after.

Each kind of trigger is tried once, in a copy of this process: a template that nobody has tried may
end the one that renders it, and then only its own triggers are stopped.

A changed template needs no restart. Before a drain the folder is looked at, at most once a second;
a template that changed is checked first, in a copy too. If it is broken, the one before is kept,
and the log says so.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from typing import Any, Final

import orjson
import structlog

from segrelay.jsonnet.files import FolderStamp, TemplateFolder, stamp_of
from segrelay.jsonnet.rendered import Template, TemplateBroken
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.adapters.jsonnet import limit_memory
from segrelay.worker.batch.delivery import LoadedTrigger
from segrelay.worker.checks.preview import render_of
from segrelay.worker.checks.triggers import (
    check_trigger,
    fails_where_another_renders,
    kind_of,
)
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.http import TemplateChoice, fingerprint_of
from segrelay.worker.destinations.registry import api_of, rules_of
from segrelay.worker.errors import WeMustAct
from segrelay.worker.node.shared import TemplateUse

EVERY_SECONDS: Final = 1.0
AT_ONCE_SECONDS: Final = 5.0
"""Seconds for checking templates before one drain; those left are checked before the next."""


@dataclass(slots=True)
class Upkeep:
    """The triggers of one process, kept up with the template files.

    Args:
        triggers: By destination and trigger, as this process works with them now.
        told: The fingerprints of triggers that Redis was told of, by their names.
        clock: In seconds; only differences count.
    """

    settings: Settings
    renderer: Renderer
    triggers: dict[str, dict[str, LoadedTrigger]]
    clock: Callable[[], float] = time.monotonic
    told: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _next_at: float = float("-inf")
    _stamp: FolderStamp | None = None
    _looked_at: float = 0.0

    @property
    def versions(self) -> dict[str, str]:
        """Return the content hashes of the triggers' templates, where a trigger has one."""
        return {
            name: loaded.template.content_hash
            for triggers in self.triggers.values()
            for name, loaded in triggers.items()
            if loaded.template is not None
        }

    @property
    def stopped(self) -> dict[str, str]:
        """Return the triggers that this process can't work on, and why."""
        every = chain.from_iterable(each.values() for each in self.triggers.values())
        return {each.name: each.stopped for each in every if each.stopped}

    def template_use(self) -> TemplateUse:
        """Return this process' report of its templates, for its node."""
        return TemplateUse(
            self.versions,
            dict(self.refused),
            self.stopped,
            self.renderer.doubted,
            self._looked_at,
        )

    def look(self) -> None:
        """Look at the templates folder if it is time; take over valid templates that changed."""
        now = self.clock()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_SECONDS
        stamp = stamp_of(self.settings.templates_folder)
        if stamp == self._stamp:
            return
        self._stamp = stamp if self._take_over(now + AT_ONCE_SECONDS) else None
        self._looked_at = now

    def _take_over(self, until: float) -> bool:
        """Take over all changed templates that are valid; return whether all were checked."""
        folder = TemplateFolder(self.settings.templates_folder, LYTEMPLATES)

        @cache
        def version_of(template: str) -> str | TemplateBroken:
            try:
                return folder.bundle(template).content_hash
            except TemplateBroken as error:
                return error

        for trigger in self.settings.triggers.values():
            if self.clock() > until:
                return False
            if not self._follow(trigger, version_of(self.settings.template_of(trigger))):
                return False
        return True

    def _follow(self, trigger: Trigger, version: str | TemplateBroken) -> bool:
        """Take over a trigger's changed template; return False if it changed again meanwhile."""
        loaded = self.triggers[trigger.destination][trigger.name]
        if isinstance(version, TemplateBroken):
            self._refuse(trigger, loaded, version.message)
            return True
        if loaded.template is not None and loaded.template.content_hash == version:
            self.refused.pop(trigger.name, None)
            return True
        problem = self._problem(trigger, loaded)
        if problem:
            self._refuse(trigger, loaded, problem)
            return True
        template = self.renderer.load(self.settings.template_of(trigger))
        if template.content_hash != version:
            return False
        mended = replace(loaded, template=template, stopped=self._unsendable(trigger))
        self.triggers[trigger.destination][trigger.name] = _with_edition(self.settings, mended)
        self.refused.pop(trigger.name, None)
        before = loaded.template.content_hash if loaded.template else ""
        LOG.info("template.changed", trigger=trigger.name, version=version, before=before)
        return True

    def _problem(self, trigger: Trigger, loaded: LoadedTrigger) -> str:
        now = datetime.now(UTC)
        findings = check_trigger(self.settings, trigger, now)
        errors = "; ".join(one.message for one in findings if one.severity == "error")
        before = loaded.template
        if errors or not findings or before is None or loaded.stopped:
            return errors
        return fails_where_another_renders(
            self.settings, trigger, lambda rows: self.renderer.render(before, rows), now
        )

    def _refuse(self, trigger: Trigger, loaded: LoadedTrigger, problem: str) -> None:
        """Keep a trigger's former template; a trigger that had none stays stopped."""
        if self.refused.get(trigger.name) == problem:
            return
        self.refused[trigger.name] = problem
        if loaded.template is None or loaded.stopped:
            stopped = replace(loaded, stopped=problem)
            self.triggers[trigger.destination][trigger.name] = stopped
            return
        kept = loaded.template.content_hash
        LOG.error("template.refused", trigger=trigger.name, reason=problem, kept=kept)

    def _unsendable(self, trigger: Trigger) -> str:
        """Say why a trigger can't send even with a valid template: a secret is not set."""
        try:
            self.settings.reveal(trigger)
        except WeMustAct as error:
            return error.message
        return ""


ANSWER_SECONDS: Final = 10
"""The processor seconds for one question."""
MEMORY_BYTES: Final = 2_000_000_000
"""The bytes by which the copy may grow."""


def answers_apart(
    questions: Sequence[Callable[[], Any]], *, seconds: float = ANSWER_SECONDS
) -> list[Any]:
    """Call each question, a function, in a fork of this process, and return the answers.

    Args:
        questions: Their answers are written as JSON.
        seconds: Processor time for each.

    Returns:
        The answers; None for one that ended the process that was asked, or raised.
    """
    answers: list[Any] = []
    while len(answers) < len(questions):
        answers += _forked(questions[len(answers) :], seconds)
        if len(answers) < len(questions):
            answers.append(None)
    return answers


def _forked(questions: Sequence[Callable[[], Any]], seconds: float) -> list[Any]:
    """Return the answers up to the first question that is not answered."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            _answer(questions, writing, seconds)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        answers = [orjson.loads(line) for line in lines if line.endswith(b"\n")]
    os.waitpid(child, 0)
    return answers


def _answer(questions: Sequence[Callable[[], Any]], writing: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory(MEMORY_BYTES)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with os.fdopen(writing, "wb", buffering=0) as answers:
        for ask in questions:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            answers.write(orjson.dumps(ask()) + b"\n")


_KILLS: Final = (
    "{}: the process that rendered a sample with it ended: it does not come to an end, or wants too"
    " much memory; `segrelay config check` says more"
)
LOG: Final = structlog.get_logger()

Ask = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""A function that calls questions and returns their answers, None where there is none."""


def load(settings: Settings, ask: Ask = answers_apart) -> Upkeep:
    """Load and try the template of each trigger; a broken one stops its trigger and no other."""
    renderer = Renderer(settings.templates_folder, LYTEMPLATES)
    names = dict.fromkeys(map(settings.template_of, settings.triggers.values()))
    templates = {name: _template(renderer, name) for name in names}
    fit = [each for each in settings.triggers.values() if templates[settings.template_of(each)][0]]
    problems = _problems(settings, fit, renderer, ask)
    triggers: dict[str, dict[str, LoadedTrigger]] = {name: {} for name in settings.destinations}
    given: dict[bytes, Mapping[str, Any]] = {}
    for trigger in settings.triggers.values():
        template, broken = templates[settings.template_of(trigger)]
        envelope, torn = _envelope(settings, trigger, renderer)
        stopped = broken or torn or problems.get(trigger.name, "")
        # Rendering writes the settings of its events as JSON once for each object that holds them.
        same = given.setdefault(orjson.dumps(trigger.settings), trigger.settings)
        loaded = replace(
            _loaded_trigger(settings, trigger, template, stopped), envelope=envelope, settings=same
        )
        triggers[trigger.destination][trigger.name] = _with_edition(settings, loaded)
        if loaded.stopped:
            LOG.error("trigger.stopped", trigger=trigger.name, reason=loaded.stopped)
    return Upkeep(settings, renderer, triggers)


def _with_edition(settings: Settings, loaded: LoadedTrigger) -> LoadedTrigger:
    """Return a trigger with the fingerprint of its templates and of its configuration."""
    trigger = settings.triggers[loaded.name]
    templates = [one.content_hash for one in (loaded.template, loaded.envelope) if one]
    destination = settings.destinations[trigger.destination]
    authorization = settings.authorizations.get(destination.authorization)
    parts = (
        *templates,
        kind_of(trigger),
        repr(sorted(trigger.audiences)),
        repr(destination),
        repr(authorization),
    )
    text = "|".join([*parts, fingerprint_of(authorization)])
    edition = hashlib.blake2b(text.encode(), digest_size=_EDITION_BYTES).hexdigest()
    return replace(loaded, edition=edition)


_EDITION_BYTES: Final = 6


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
    findings = check_trigger(settings, trigger, datetime.now(UTC), render_of(renderer))
    errors = [finding.message for finding in findings if finding.severity == "error"]
    return "; ".join(errors), renderer.doubted


def _loaded_trigger(
    settings: Settings, trigger: Trigger, template: Template | None, stopped: str
) -> LoadedTrigger:
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
    return LoadedTrigger(
        name=trigger.name,
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
        authority=authorization.authority if authorization else "",
    )
