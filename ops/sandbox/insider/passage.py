"""The processing of one write: its delay, its effect, and its answer."""

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
    """A write that was admitted, with the fault drawn for it.

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
        """Wait half of the delay, apply the write, wait the other half, and answer."""
        await pause(delay_seconds / 2)
        answer = self._take_effect()
        await pause(delay_seconds / 2)
        await self._deliver(answer)

    def _take_effect(self) -> Reply | None:
        """Apply the write now, later or never; return the answer, None if there is none."""
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
        """Answer the write; it is logged before, so that the client finds it in the log."""
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
    """Sleep; zero seconds do not yield to other tasks."""
    if seconds > 0:
        await asyncio.sleep(seconds)
