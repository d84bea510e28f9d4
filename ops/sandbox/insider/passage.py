"""One write on its way through the sandbox: in flight, taking effect, answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final, assert_never

from ops.sandbox.answer import Reply
from ops.sandbox.exchange import Exchange
from ops.sandbox.insider.api import Insider, Write
from ops.sandbox.insider.faults import Fault
from ops.sandbox.insider.journal import CLOSED, Flight, Journal
from ops.sandbox.settings import SandboxSettings

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class AdmittedWrite:
    """A write that was let in, with the fault drawn for it.

    It holds the account and the journal of its arrival, which a reset may replace meanwhile.
    """

    exchange: Exchange
    request: Write
    fault: Fault
    flight: Flight
    insider: Insider
    journal: Journal
    settings: SandboxSettings

    async def run(self, delay_seconds: float) -> None:
        """Let half of the time pass, take effect, let the other half pass, and answer."""
        await pause(delay_seconds / 2)
        answer = self._take_effect()
        await pause(delay_seconds / 2)
        await self._deliver(answer)

    def _take_effect(self) -> Reply | None:
        """Apply now, never or later; return the answer, None where there is none."""
        match self.fault.takes_effect:
            case "now":
                answer = self._apply()
                return self.fault.answer or answer
            case "never":
                self.journal.never_takes_effect(self.flight, time.time())
            case "late":
                loop = asyncio.get_running_loop()
                loop.call_later(self.settings.late_seconds, self._apply)
            case _:
                assert_never(self.fault.takes_effect)
        return self.fault.answer

    def _apply(self) -> Reply:
        answer = self.insider.apply(self.request, time.time())
        self.journal.took_effect(self.flight, answer.failed, time.time())
        return answer

    async def _deliver(self, answer: Reply | None) -> None:
        """Answer; the journal knows it first, so that whoever got the answer finds it there."""
        if answer is None or self.fault.delivery == "closed":
            self._note(CLOSED, sure=False)
            await self.exchange.close()
        elif self.fault.delivery == "dripping":
            await self.exchange.drip(answer, self.settings.drip_seconds)
            self._note(answer.status, sure=self.exchange.is_open)
        else:
            good = not self.fault.name and answer.status == _OK and self.exchange.is_open
            self._note(answer.status, sure=good)
            await self._send(answer)

    async def _send(self, answer: Reply) -> None:
        match self.fault.delivery:
            case "truncated":
                await self.exchange.truncate(answer)
            case "endless":
                await self.exchange.never_end(answer, self.settings.endless_seconds)
            case _:
                await self.exchange.answer(answer)

    def _note(self, status: int, *, sure: bool) -> None:
        self.journal.answered(self.flight, status, time.time(), sure=sure)


async def pause(seconds: float) -> None:
    """Let time pass, without giving way to others if there is none to pass."""
    if seconds > 0:
        await asyncio.sleep(seconds)
