"""The ASGI application: reads requests, asks the faults and the account, and answers."""

from __future__ import annotations

import time
from typing import Final

import structlog

from ops.sandbox.answer import Reply, error
from ops.sandbox.catch_all import caught, is_for_us
from ops.sandbox.exchange import AsgiScope, Exchange, Receive, Send
from ops.sandbox.insider import identities, rules
from ops.sandbox.insider.api import ArrivedRequest
from ops.sandbox.insider.faults import Fault
from ops.sandbox.insider.passage import AdmittedWrite, pause
from ops.sandbox.insider.rules import CHANGES, COLUMNS, IDENTITY, PROFILE, WRITES
from ops.sandbox.inspection import PREFIX, inspect
from ops.sandbox.lytics.api import API_PREFIXES
from ops.sandbox.settings import SandboxSettings
from ops.sandbox.state import SandboxState
from worker.contract.settings.sandboxed import TOKEN_PATH

_log: Final = structlog.get_logger("sandbox")


class Sandbox:
    """Routes requests to the writing, the reading and the inspecting paths."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.state = SandboxState(settings)

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
        """Answer for another destination than Insider, or as the OAuth2 server of all."""
        state, now = self.state, time.time()
        settings, headers = state.settings, exchange.headers
        fault = state.faults.draw(exchange.path, body)
        await pause(state.faults.delay_seconds())
        if settings.credentials_status and fault.answer is None:
            fault = Fault("wrong_key", "never", error(settings.credentials_status, "wrong key"))
        if exchange.path == TOKEN_PATH:
            await exchange.answer(
                fault.answer or state.catch_all.token(headers, body, settings, now)
            )
            return
        came = caught(exchange.method, exchange.path, exchange.queries, headers=headers, raw=body)
        if fault.delivery == "closed":
            if fault.takes_effect == "now":
                state.catch_all.take(came, body, headers, settings)
            await exchange.close()
        elif fault.answer:
            await exchange.answer(state.catch_all.turned_away(came, fault.answer, fault.name))
        else:
            await exchange.answer(state.catch_all.take(came, body, headers, settings))

    async def _act(self, exchange: Exchange, call: ArrivedRequest) -> None:
        if exchange.method != ("PATCH" if call.path == IDENTITY else "POST"):
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
            case rules.IDENTITY:
                return refusal or identities.rename(insider, call)
            case rules.ANONYMIZE:
                return refusal or identities.anonymize(insider, call)
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
            exchange, request, fault, flight, state.insider, state.journal, state.settings
        )
        await passage.run(state.faults.delay_seconds())
