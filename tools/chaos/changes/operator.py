"""`PatientOperator` gives a command again until it succeeds, whatever breaks meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.ops.demo.rig import Rig
from segrelay.worker.errors import OperationsMustAct

_PAUSE_SECONDS: Final = 0.3


@dataclass(slots=True)
class PatientOperator:
    """Runs commands as an operator would, and repeats each one until it succeeds.

    Args:
        stop_at: The end of the whole run, by the monotonic clock.
        problems: Tracebacks that commands have printed.
    """

    rig: Rig
    stop_at: float
    problems: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def insist(self, *arguments: str) -> None:
        """Repeat a command until it succeeds.

        Raises:
            OperationsMustAct: It never did.
        """
        self._insist(*arguments)

    def document(self, *arguments: str) -> dict[str, Any]:
        """Repeat a command with `--json` until it succeeds, and return the document that it prints.

        Raises:
            OperationsMustAct: It never did.
        """
        found: dict[str, Any] = orjson.loads(self._insist(*arguments, "--json"))
        return found

    def pause(self) -> bool:
        """Wait a moment, and return whether there is time to try again."""
        return not self._over.wait(_PAUSE_SECONDS) and time.monotonic() < self.stop_at

    def end(self) -> None:
        """Stop repeating commands."""
        self._over.set()

    def _insist(self, *arguments: str) -> bytes:
        while True:
            left_seconds = max(1.0, self.stop_at - time.monotonic())
            done = self.rig.command(*arguments, timeout=left_seconds)
            if not done.returncode:
                return done.stdout
            said = done.stderr.decode(errors="replace")
            if "Traceback" in said:
                self.problems.append(f"{' '.join(arguments)}: {said[-1_000:]}")
            if not self.pause():
                raise OperationsMustAct(f"`{' '.join(arguments)}` never succeeded: {said[-500:]}")
