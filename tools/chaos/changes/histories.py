"""The histories of a run: aborted jobs, a renamed audience, and a rewritten export.

Jobs are aborted, an audience is renamed, and an export is rewritten, one after the other in a
thread of their own. The disruptions go on meanwhile, so each command is given until it succeeds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from segrelay.ops.demo.rig import Rig
from segrelay.sandbox.people import Happening
from segrelay.worker.errors import SegrelayError
from tools.chaos.changes.aborted_jobs import AbortedJobs
from tools.chaos.changes.operator import PatientOperator
from tools.chaos.changes.renamed_audience import RenamedAudience
from tools.chaos.changes.rewritten_file import RewrittenFile
from tools.chaos.plan import Plan

_COMMAND_SECONDS: Final = 130.0
"""Seconds to wait for the last command, longer than any should take; see `Rig.command`."""


@dataclass(slots=True)
class Histories:
    """The aborts, the renaming and the rewriting of one run.

    Args:
        rng: Puts them into a random order; nobody else uses it.
    """

    plan: Plan
    rng: random.Random
    operator: PatientOperator
    aborted: AbortedJobs
    renamed: RenamedAudience
    rewritten: RewrittenFile
    _problems: list[str] = field(default_factory=list)
    _thread: threading.Thread | None = None

    @classmethod
    def of(cls, rig: Rig, plan: Plan, happened: list[Happening], stop_at: float) -> Histories:
        """Prepare the histories of a plan."""
        rng = random.Random(plan.seed + 3)  # noqa: S311 - repeatable on purpose
        operator = PatientOperator(rig, stop_at)
        return cls(
            plan,
            rng,
            operator,
            AbortedJobs(rig, operator, plan.aborted_rows),
            RenamedAudience(rig, operator, happened),
            RewrittenFile(rig, random.Random(plan.seed + 4), plan.exported, plan.rewrites),  # noqa: S311
        )

    @property
    def problems(self) -> list[str]:
        """Return the problems of the histories, such as a command that never succeeded."""
        own = (self.operator, self.aborted, self.renamed)
        return [*self._problems, *(problem for each in own for problem in each.problems)]

    def start(self) -> None:
        """Start the histories."""
        self.rewritten.begin()
        self._thread = threading.Thread(target=self._run, name="histories", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the histories have ended, at most until the end of the run."""
        if self._thread:
            self._thread.join(max(0.0, self.operator.stop_at - time.monotonic()))
            if self._thread.is_alive():
                self._problems.append("a command of the histories did not end in time")
        self.rewritten.end()

    def end(self) -> None:
        """Stop the histories at once, so that none of their commands outlives the run."""
        self.operator.end()
        self.rewritten.end()
        if self._thread:
            self._thread.join(_COMMAND_SECONDS)

    def published(self) -> int:
        """Return the number of deliveries that the histories have published."""
        return self.aborted.accepted() + self.renamed.published + self.rewritten.accepted()

    def _run(self) -> None:
        try:
            for step in self._steps():
                step()
        except SegrelayError as error:
            self._problems.append(error.message)

    def _steps(self) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = [
            partial(self.aborted.abort_one, is_frozen=bool(number % 2))
            for number in range(self.plan.aborts)
        ]
        if not self.plan.overwrite:  # the lists of its profiles know the former name only
            steps.append(self.renamed.rename)
        self.rng.shuffle(steps)
        return steps
