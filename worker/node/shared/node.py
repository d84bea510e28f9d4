"""A node: one Celery worker with all its processes, and what they share since before the fork."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from worker.contract.redis.birth import KnownBirths
from worker.node.shared.memory import locked, read_all, unnamed_file, write_all
from worker.node.shared.slots import Slots
from worker.node.shared.stop import Board
from worker.node.shared.waiting import WaitingCalls

_LOOKS: Final = 5
"""The number of looks of the sweep after which it rings for stopped triggers once, too."""


class StoppedTriggers:
    """Triggers that this node can't work on, e.g. for a template that is broken.

    It finds out before its processes are forked; the sweep must not ring for them.
    """

    def __init__(self) -> None:
        self._descriptor = unnamed_file()
        self._looks = 0

    def write(self, names: Iterable[str]) -> None:
        """Replace the names of the stopped triggers."""
        with locked(self._descriptor):
            write_all(self._descriptor, "\n".join(sorted(names)))

    def read_for_ringing(self) -> frozenset[str]:
        """Return the stopped triggers, or now and then none, to find out whether one was mended."""
        self._looks += 1
        return frozenset() if self._looks % _LOOKS == 0 else self.read()

    def read(self) -> frozenset[str]:
        """Return the names of the stopped triggers."""
        with locked(self._descriptor):
            return frozenset(read_all(self._descriptor).splitlines())


class DoubtedTemplates:
    """Templates whose compiled form differed from the engine, and how often, in this node."""

    def __init__(self) -> None:
        self._descriptor = unnamed_file()

    def add(self, found: Mapping[str, int]) -> None:
        """Add the doubts of one process; of several processes the largest number counts."""
        with locked(self._descriptor):
            known = _stored(self._descriptor)
            most = {name: max(count, known.get(name, 0)) for name, count in found.items()}
            if most.items() - known.items():
                write_all(self._descriptor, json.dumps({**known, **most}))

    def read(self) -> dict[str, int]:
        """Return the templates in doubt, and how often each differed."""
        with locked(self._descriptor):
            return _stored(self._descriptor)


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """A process' report of the templates that it works with.

    Args:
        versions: By trigger.
        refused: By trigger, why a changed template is not used.
        stopped: Triggers that it can't work on.
        engine_use: By template and reason, how many of its last events needed the engine.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    engine_use: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class TemplateVersions:
    """The template versions that the processes of this node work with."""

    def __init__(self) -> None:
        self._descriptor = unnamed_file()

    def report(self, pid: int, use: TemplateUse) -> None:
        """Record the templates that a process works with, and forget processes that have ended."""
        own = {
            "versions": dict(use.versions),
            "refused": dict(use.refused),
            "engine_use": {name: dict(counts) for name, counts in use.engine_use.items()},
        }
        with locked(self._descriptor):
            stored = _stored(self._descriptor)
            if stored.get(str(pid)) == own:
                return
            others = {name: each for name, each in stored.items() if _runs(int(name))}
            write_all(self._descriptor, json.dumps({**others, str(pid): own}))

    def in_use(self) -> dict[str, Any]:
        """Return the templates that the running processes work with, as fields of `Process`."""
        versions: dict[str, set[str]] = {}
        refused: dict[str, str] = {}
        engine_use: dict[str, Counter[str]] = {}
        with locked(self._descriptor):
            stored = _stored(self._descriptor)
        for each in (own for pid, own in sorted(stored.items()) if _runs(int(pid))):
            refused |= each["refused"]
            for trigger, version in each["versions"].items():
                versions.setdefault(trigger, set()).add(version)
            for template, counts in each["engine_use"].items():
                engine_use.setdefault(template, Counter()).update(counts)
        return {
            "versions": {trigger: sorted(each) for trigger, each in sorted(versions.items())},
            "refused": refused,
            "engine_use": {template: dict(each) for template, each in sorted(engine_use.items())},
        }


def _stored(descriptor: int) -> dict[str, Any]:
    """Return the JSON in a file; {} if its writer was killed while writing."""
    try:
        return dict(json.loads(read_all(descriptor) or "{}"))
    except ValueError:
        return {}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """The state that the processes of one node share."""

    slots: Slots
    waiting: WaitingCalls = field(default_factory=WaitingCalls)
    board: Board = field(default_factory=Board)
    stopped: StoppedTriggers = field(default_factory=StoppedTriggers)
    doubted: DoubtedTemplates = field(default_factory=DoubtedTemplates)
    templates: TemplateVersions = field(default_factory=TemplateVersions)
    known_births: KnownBirths = field(default_factory=KnownBirths)

    def about_templates(self) -> dict[str, Any]:
        """Return the fields of `Process` that describe the templates of this node."""
        return {"doubted": self.doubted.read(), **self.templates.in_use()}

    @classmethod
    def of(cls, processes: int, destinations: Iterable[str]) -> Self:
        """Return the memory of a new node; call it before any process is forked."""
        return cls(Slots(processes, destinations))
