"""The ASGI application: reads requests, asks the faults and the account, and answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from segrelay.sandbox.catch_all import caught, is_for_us
from segrelay.sandbox.exchange import AsgiScope, Exchange, Receive, Reply, Send, error
from segrelay.sandbox.insider import api, rules
from segrelay.sandbox.insider.api import USERS_AT_ONCE, ArrivedRequest, Insider, Write
from segrelay.sandbox.insider.faults import Fault
from segrelay.sandbox.insider.journal import CLOSED, Flight, Journal
from segrelay.sandbox.insider.rules import CHANGES, COLUMNS, PROFILE, WRITES
from segrelay.sandbox.lytics.api import API_PREFIXES
from segrelay.sandbox.settings import TOKEN_PATH, SandboxSettings
from segrelay.sandbox.state import PREFIX, SandboxState, inspect

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class AdmittedWrite:
    """A write that was admitted, with the fault drawn for it.

    It holds the account and the journal of its arrival, which a reset may replace meanwhile.

    Args:
        turns: The lock by which large writes are applied one after the other.
    """

    exchange: Exchange
    request: Write
    fault: Fault
    flight: Flight
    insider: Insider
    journal: Journal
    settings: SandboxSettings
    turns: asyncio.Lock

    async def run(self, delay_seconds: float) -> None:
        """Wait half of the delay, apply the write, wait the other half, and answer."""
        await pause(delay_seconds / 2)
        answer = await self._take_effect()
        await pause(delay_seconds / 2)
        await self._deliver(answer)

    async def _take_effect(self) -> Reply | None:
        """Apply the write now, later or never; return the answer, None if there is none."""
        match self.fault.takes_effect:
            case "now":
                answer = await self._apply_in_turn()
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
        return self._applied(self.insider.apply(self.request, time.time()))

    async def _apply_in_turn(self) -> Reply:
        """Apply the write; a small one does not wait until a large one is applied."""
        if len(self.request.users) <= USERS_AT_ONCE:
            return self._apply()
        async with self.turns:
            steps = self.insider.applying(self.request, time.time())
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return self._applied(end.value)
                await asyncio.sleep(0)

    def _applied(self, answer: Reply) -> Reply:
        self.journal.took_effect(self.flight, answer.failed, time.time())
        return answer

    async def _deliver(self, answer: Reply | None) -> None:
        """Answer the write; it is logged before, so that the client finds it in the log."""
        if answer is None or self.fault.is_closed:
            self._note(CLOSED, sure=False)
            await self.exchange.close()
        else:
            good = not self.fault.name and answer.status == _OK and self.exchange.is_open
            self._note(answer.status, sure=good)
            await self.exchange.answer(answer)

    def _note(self, status: int, *, sure: bool) -> None:
        self.journal.answered(self.flight, status, time.time(), sure=sure)


async def pause(seconds: float) -> None:
    """Sleep; zero seconds do not yield to other tasks."""
    if seconds > 0:
        await asyncio.sleep(seconds)


_log: Final = structlog.get_logger("sandbox")


class Sandbox:
    """Routes requests to the writing, the reading and the inspecting paths."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.state = SandboxState(settings)
        self._turns = asyncio.Lock()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request; other ASGI scopes are left alone."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        body = await exchange.body()
        if body is None:
            await exchange.close()
        elif exchange.path.startswith(PREFIX):
            await exchange.answer(inspect(self.state, exchange, body))
        elif is_for_us(exchange.path):
            await self._catch(exchange, body)
        elif exchange.path.startswith(API_PREFIXES):
            lytics, method, path = self.state.lytics, exchange.method, exchange.path
            await exchange.answer(
                await lytics.api(method, path, exchange.queries, exchange.headers, body)
            )
        else:
            await self._act(exchange, ArrivedRequest(exchange.path, exchange.headers, body))

    async def _catch(self, exchange: Exchange, body: bytes) -> None:
        """Answer in place of another destination than Insider, or as the OAuth2 server of all."""
        state, now = self.state, time.time()
        settings, headers = state.settings, exchange.headers
        fault = state.faults.draw(exchange.path, body)
        await pause(state.faults.delay_seconds())
        if settings.credentials_status and fault.answer is None:
            fault = Fault("wrong_key", "never", error(settings.credentials_status, "wrong key"))
        if exchange.path == TOKEN_PATH:
            issuer, seconds = state.catch_all.issuer, settings.token_seconds
            await exchange.answer(
                fault.answer or issuer.issue(headers, body, seconds=seconds, now=now)
            )
            return
        came = caught(exchange.method, exchange.path, exchange.queries, headers=headers, raw=body)
        if fault.is_closed:
            if fault.takes_effect == "now":
                state.catch_all.take(came, body, headers, settings)
            await exchange.close()
        elif fault.answer:
            await exchange.answer(state.catch_all.kept(came, fault.answer, fault.name))
        else:
            await exchange.answer(state.catch_all.take(came, body, headers, settings))

    async def _act(self, exchange: Exchange, call: ArrivedRequest) -> None:
        if exchange.method != "POST":
            await self._turn_away(exchange, call, error(405, "method not allowed"))
        elif call.path in WRITES:
            await self._write(exchange, call)
        else:
            fault = self.state.faults.draw_read(call.path, call.body)
            await pause(self.state.faults.delay_seconds())
            await self._turn_away(exchange, call, fault.answer or self._other(call))

    def _other(self, call: ArrivedRequest) -> Reply:
        insider, now = self.state.insider, time.time()
        if call.path not in {PROFILE, COLUMNS, *CHANGES}:
            return error(404, "not found")
        refusal = insider.denied(call.headers)
        if call.path in CHANGES and not refusal:
            insider.received.add(now, insider.settings.window_seconds)
        match call.path:
            case rules.PROFILE:
                return refusal or insider.read_profile(call, now)
            case rules.COLUMNS:
                return refusal or insider.read_columns(call)
            case rules.ANONYMIZE:
                return refusal or api.anonymize(insider, call)
        answer = refusal or insider.erase(call)
        _log.error("erasure.received", path=call.path, erased=insider.profiles.erased)
        return answer

    async def _turn_away(self, exchange: Exchange, call: ArrivedRequest, answer: Reply) -> None:
        self.state.journal.turned_away(call.path, len(call.body), answer.status, time.time())
        await exchange.answer(answer)

    async def _write(self, exchange: Exchange, call: ArrivedRequest) -> None:
        state, now = self.state, time.time()
        request = state.insider.admit(call, now)
        if isinstance(request, Reply):
            await pause(state.faults.delay_seconds())
            await self._turn_away(exchange, call, request)
            return
        fault = state.faults.draw(call.path, call.body)
        flight = state.journal.begin(
            request, call.body, profiles=state.insider.profiles, fault=fault.name, now=now
        )
        passage = AdmittedWrite(
            exchange,
            request,
            fault,
            flight,
            state.insider,
            state.journal,
            state.settings,
            self._turns,
        )
        await passage.run(state.faults.delay_seconds())
