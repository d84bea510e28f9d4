"""The triggers and templates of a node: loaded before its processes are forked, and kept up after.

Each kind of trigger is tried once, in a copy of this process: a template that nobody has tried may
end the one that renders it, and then only its own triggers are stopped.

A changed template needs no restart. Before a drain the folder is looked at, at most once a second;
a template that changed is checked first, in a copy too. If it is broken, the one before is kept,
and the log says so.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from multiprocessing.connection import Connection
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
        triggers: The triggers as this process works with them now, by destination and name.
        told: The editions of triggers that Redis was told of, by trigger.
        clock: A clock in seconds, of which only differences count.
        refused: The problem of a trigger's newest template, which is not taken over, by trigger.
    """

    settings: Settings
    renderer: Renderer
    triggers: dict[str, dict[str, LoadedTrigger]]
    clock: Callable[[], float] = time.monotonic
    told: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _left: deque[Trigger] = field(default_factory=deque)
    _next_at: float = float("-inf")
    _stamp: FolderStamp | None = None
    _looked_at: float = 0.0

    @property
    def stopped(self) -> dict[str, str]:
        """Return the triggers that this process can't work on, and why."""
        every = chain.from_iterable(each.values() for each in self.triggers.values())
        return {each.name: each.stopped for each in every if each.stopped}

    def template_use(self) -> TemplateUse:
        """Return this process' report of its templates, for its node."""
        every = chain.from_iterable(each.values() for each in self.triggers.values())
        return TemplateUse(
            {each.name: each.template.content_hash for each in every if each.template},
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
        if stamp != self._stamp:
            self._stamp, self._left = stamp, deque(self.settings.triggers.values())
        if self._left:
            self._take_over(now + AT_ONCE_SECONDS)
            self._looked_at = now

    def _take_over(self, until: float) -> None:
        """Take over changed templates that are valid; those that are left over wait for a look."""
        folder = TemplateFolder(self.settings.templates_folder, LYTEMPLATES)

        @cache
        def version_of(template: str) -> str | TemplateBroken:
            try:
                return folder.bundle(template).content_hash
            except TemplateBroken as error:
                return error

        while self._left and self.clock() <= until:
            trigger = self._left[0]
            if not self._follow(trigger, version_of(self.settings.template_of(trigger))):
                return
            self._left.popleft()

    def _follow(self, trigger: Trigger, version: str | TemplateBroken) -> bool:
        """Take over a trigger's changed template; return False if it changed again meanwhile."""
        loaded = self.triggers[trigger.destination][trigger.name]
        if isinstance(version, TemplateBroken):
            self._refuse(trigger, loaded, version.message)
            return True
        if loaded.template is not None and loaded.template.content_hash == version:
            self.refused.pop(trigger.name, None)
            return True
        if problem := self._problem(trigger, loaded):
            self._refuse(trigger, loaded, problem)
            return True
        template = self.renderer.load(self.settings.template_of(trigger))
        if template.content_hash != version:
            return False
        stopped = _unsendable(self.settings, trigger)
        mended = replace(loaded, template=template, stopped=stopped)
        self.triggers[trigger.destination][trigger.name] = _with_edition(self.settings, mended)
        self.refused.pop(trigger.name, None)
        before = loaded.template.content_hash if loaded.template else ""
        LOG.info("template.changed", trigger=trigger.name, version=version, before=before)
        return True

    def _problem(self, trigger: Trigger, loaded: LoadedTrigger) -> str:
        now = datetime.now(UTC)
        _, findings = check_trigger(self.settings, trigger, now)
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


LOG: Final = structlog.get_logger()
ANSWER_SECONDS: Final = 10
"""The processor seconds for one question."""
MEMORY_BYTES: Final = 2_000_000_000
"""The bytes by which the copy may grow."""
_EDITION_BYTES: Final = 6
_FORK: Final = multiprocessing.get_context("fork")
_KILLS: Final = (
    "{}: the process that rendered a sample with it ended: it does not come to an end, or wants too"
    " much memory; `segrelay config check` says more"
)


def answer_apart(question: Callable[[], Any], *, seconds: float = ANSWER_SECONDS) -> Any:
    """Call a function in a fork of this process.

    Args:
        question: The function.
        seconds: The processor time that the function may take.

    Returns:
        What it returns; None if it ended the process, or raised.
    """
    reading, writing = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_answer, args=(question, writing, seconds))
    process.start()
    writing.close()
    with reading:
        try:
            return reading.recv()
        except (EOFError, OSError):
            return None
        finally:
            process.join()


def _answer(question: Callable[[], Any], writing: Connection, seconds: float) -> None:
    with suppress(BaseException):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit_memory(MEMORY_BYTES)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        writing.send(question())


def load(settings: Settings, ask: Callable[[Callable[[], Any]], Any] = answer_apart) -> Upkeep:
    """Load and try the template of each trigger; a broken one stops its trigger and no other.

    Args:
        settings: The configuration.
        ask: A function that calls another one and returns its result; None = there is none.
    """
    renderer = Renderer(settings.templates_folder, LYTEMPLATES)

    @cache
    def load_template(name: str) -> tuple[Template | None, str]:
        """Return a template, or why it does not load."""
        try:
            return renderer.load(name), ""
        except TemplateBroken as error:
            return None, error.message

    triggers: dict[str, dict[str, LoadedTrigger]] = {name: {} for name in settings.destinations}
    apis: list[Any] = []
    given: dict[bytes, Mapping[str, Any]] = {}
    problems: dict[str, str] = {}
    for trigger in settings.triggers.values():
        template, broken = load_template(settings.template_of(trigger))
        kind, choice = kind_of(trigger), settings.http_of(trigger).envelope
        is_whole = isinstance(choice, TemplateChoice)
        envelope, torn = load_template(choice.template) if is_whole else (None, "")
        if template and kind not in problems:
            answer = ask(partial(_try, settings, trigger, renderer))
            problems[kind], doubted = answer or (_KILLS.format(trigger.main_template), {})
            renderer.distrust(doubted)
        unsendable = _unsendable(settings, trigger)
        destination, api = settings.destinations[trigger.destination], api_of(settings, trigger)
        if api not in apis:
            apis.append(api)
        authorization = settings.authorization_of(destination)
        reveals = authorization if not unsendable else None
        loaded = LoadedTrigger(
            name=trigger.name,
            api=apis[apis.index(api)],
            api_name=destination.api,
            template=template,
            rules=rules_of(settings, trigger),
            headers=reveals.revealed_headers() if reveals else {},
            params=reveals.revealed_parameters() if reveals else {},
            # Rendering writes the settings of its events as JSON once for each object that holds
            # them.
            settings=given.setdefault(orjson.dumps(trigger.settings), trigger.settings),
            on_ambiguous=destination.on_ambiguous,
            engine=trigger.engine,
            stopped=broken or torn or problems.get(kind, "") or unsendable,
            token_of=authorization.name if authorization and authorization.uses_token else "",
            authority=authorization.authority if authorization else "",
            envelope=envelope,
        )
        triggers[trigger.destination][trigger.name] = _with_edition(settings, loaded)
        if loaded.stopped:
            LOG.error("trigger.stopped", trigger=trigger.name, reason=loaded.stopped)
    return Upkeep(settings, renderer, triggers)


def _unsendable(settings: Settings, trigger: Trigger) -> str:
    """Say why a trigger can't send even with a valid template: a secret is not set."""
    try:
        settings.reveal(trigger)
    except WeMustAct as error:
        return error.message
    return ""


def _try(settings: Settings, trigger: Trigger, renderer: Renderer) -> tuple[str, dict[str, int]]:
    """Return the problems of a trigger, and the compiled forms that differ from the engine."""
    _, findings = check_trigger(settings, trigger, datetime.now(UTC), render_of(renderer))
    errors = [finding.message for finding in findings if finding.severity == "error"]
    return "; ".join(errors), renderer.doubted


def _with_edition(settings: Settings, loaded: LoadedTrigger) -> LoadedTrigger:
    """Return a trigger with the fingerprint of its templates and of its configuration."""
    trigger = settings.triggers[loaded.name]
    destination = settings.destinations[trigger.destination]
    authorization = settings.authorization_of(destination)
    parts = (
        *(one.content_hash for one in (loaded.template, loaded.envelope) if one),
        kind_of(trigger),
        repr(sorted(trigger.audiences)),
        repr(destination),
        repr(authorization),
        fingerprint_of(authorization),
    )
    edition = hashlib.blake2b("|".join(parts).encode(), digest_size=_EDITION_BYTES).hexdigest()
    return replace(loaded, edition=edition)
