"""`RedisGate`: the gate of one host and authorization, as one hash in Redis, on Redis' clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import AsyncRedis, Redis
from segrelay.worker.contract.redis.scripts import (
    NamedCall,
    named_answer,
    run_script,
    run_script_async,
    script_call,
)
from segrelay.worker.contract.settings import Authorization, Destination
from segrelay.worker.contract.settings.http import fingerprint_of
from segrelay.worker.core.gate import (
    MICROSECONDS,
    POLICY,
    UNSENT,
    WHOLE,
    WORTH_WAITING_SECONDS,
    Closed,
    GateStatus,
    Heard,
    LaneKind,
    Open,
    SendTime,
    TriggerAnswers,
    gate_id,
    heard,
)
from segrelay.worker.core.verdicts import Verdict

LOOK: Final = "gate_look"
BOOK: Final = "gate_book"

LOG: Final = structlog.get_logger()


class RedisGate:
    """Keeps a gate in Redis: the permission to send to one host with one authorization.

    Args:
        client: The client of Redis; it repeats no command by itself.
        authorization: The credentials of its requests; None = they carry none.
    """

    def __init__(
        self,
        client: AsyncRedis,
        destination: Destination,
        authorization: Authorization | None,
    ) -> None:
        self.gate_id = gate_id(destination.base_url, destination.gate_scope)
        self._client = client
        self._key = keys.gate(self.gate_id)
        self._name = destination.name
        self._rate = destination.rate_per_minute
        self._label = authorization.label or authorization.name if authorization else ""
        self.fingerprint = fingerprint_of(authorization)

    async def look(self, triggers: Iterable[str]) -> dict[str, Open | Closed]:
        """Return for each trigger whether the gate is open for its requests.

        A breaker that one trigger alone has opened is closed for that one, and for no other.
        """
        names = list(triggers)
        return looks(names, await self._call(LOOK, **_look(self._rate, self.fingerprint, names)))

    async def book(
        self,
        *,
        kind: LaneKind,
        triggers: Sequence[str],
        horizon_seconds: float,
    ) -> SendTime | Closed:
        """Book the next send time, unless it is further away than the horizon.

        A send time that has expired when the request is ready must not be used: book again.

        Args:
            kind: The kind of the request's lane; backfill books nothing while a live request waits
                for its send time.
            triggers: The triggers of the request. Several share one only if the gate is plainly
                open for each of them; else it is `APART`, and `look` says for which it is not.
            horizon_seconds: The longest time ahead for a booking, at most 15 minutes.
        """
        answer = await self._call(
            BOOK,
            rate=repr(self._rate),
            fingerprint=self.fingerprint,
            kind=kind,
            horizon=round(horizon_seconds * MICROSECONDS),
            triggers=" ".join(triggers),
        )
        if not answer[0]:
            return _closed(answer)
        booked = named_answer(scripts.source(BOOK), answer)
        return SendTime(
            booked["at"] / 1000,
            booked["now"] / 1000,
            dict(zip(triggers, booked["successes"], strict=True)),
            bool(booked["probe"]),
            booked["incident"],
        )

    async def report(
        self,
        send_time: SendTime,
        verdict: Verdict,
        *,
        delivered: Mapping[str, int],
        batch: str = "",
    ) -> None:
        """Report the verdict about a send time's request to the gate.

        Args:
            send_time: The send time, as it was booked.
            verdict: The verdict of the answer.
            delivered: The number of deliveries that were made, by trigger.
            batch: The position (`lane|trigger|id`) of the first delivery sent, which stands for the
                request.
        """
        what = heard(verdict, policy=POLICY, label=self._label, fingerprint=self.fingerprint)
        await self._report(send_time, what, delivered, batch)

    async def answers(self, triggers: Iterable[str]) -> dict[str, TriggerAnswers]:
        """Return how the last requests of each trigger were answered."""
        names = list(triggers)
        found = await self._call("gate_answers", triggers=" ".join(names))
        return {
            name: TriggerAnswers(None if age < 0 else age / MICROSECONDS, refused.decode())
            for name, (age, refused) in zip(names, found, strict=True)
        }

    async def cancel(self, send_time: SendTime) -> None:
        """Give a send time back because nothing was sent; another may be the probe."""
        if send_time.probe:
            await self._report(send_time, UNSENT, {}, "")

    async def _report(
        self, send_time: SendTime, what: Heard, delivered: Mapping[str, int], batch: str
    ) -> None:
        answer = await self._call(
            "gate_report",
            what=what.what,
            about=what.about,
            wait=what.wait,
            incident=send_time.incident,
            probe=int(send_time.probe),
            batch=batch,
            fingerprint=self.fingerprint,
            triggers=" ".join(send_time.successes),
            made=" ".join([str(delivered.get(name, 0)) for name in send_time.successes]),
        )
        state, message, before = (text.decode() for text in answer)
        if (state == "broken") != (before == "broken"):
            event = "destination.broken" if state == "broken" else "destination.recovered"
            LOG.warning(event, destination=self._name, reason=message)

    async def resume(self, trigger: str = "") -> None:
        """Open the gate after one probe; with a trigger, only require a probe of that trigger."""
        await self._call("gate_resume", trigger=trigger)

    async def _call(self, name: str, **values: Any) -> Any:
        text = scripts.source(name)
        call = script_call(text, gate=self._key, **values)
        return await run_script_async(self._client, text, call.keys, call.args)


def look_call(destination: Destination, fingerprint: str, triggers: Sequence[str]) -> NamedCall:
    """Return the call of the script that says whether a gate is open; `looks` reads its answer."""
    text = scripts.source(LOOK)
    key = keys.gate(gate_id(destination.base_url, destination.gate_scope))
    asked = _look(destination.rate_per_minute, fingerprint, triggers)
    return text, script_call(text, gate=key, **asked)


def looks(triggers: Sequence[str], answers: Sequence[Any]) -> dict[str, Open | Closed]:
    """Return for each trigger whether the gate is open, from the answer to `look_call`."""
    found = [_open(answer) if answer[0] else _closed(answer) for answer in answers]
    if len(found) == 1:
        return dict.fromkeys(triggers, found[0])
    return dict(zip(triggers, found, strict=True))


def read_state(
    client: Redis,
    name: str,
    *,
    configured_per_minute: float = 0.0,
) -> GateStatus:
    """Return the status of a gate.

    Args:
        client: The synchronous client of a command.
        name: The gate's name, as `gate_id` returns it.
        configured_per_minute: The configured rate, which counts like those that workers have told;
            the lowest holds. 0 = not known.
    """
    rate = repr(configured_per_minute) if configured_per_minute else "0"
    text = scripts.source("gate_status")
    found = named_answer(text, _ask(client, text, name, rate=rate))
    return GateStatus(
        state=found["state"].decode(),
        reason=found["reason"].decode(),
        message=found["message"].decode(),
        rate_per_minute=float(found["rate"]),
        factor=found["factor"] / WHOLE,
        until_ms=found["until_us"] / 1000 if found["until_us"] else None,
        is_open=bool(found["is_open"]),
        by=found["by"].decode(),
        since_ms=found["since"] / 1000,
    )


def read_looks(
    client: Redis, destination: Destination, triggers: Sequence[str]
) -> dict[str, Open | Closed]:
    """Return for each trigger whether a gate is open, as a drain would find it.

    The credentials are left out of account: a command may not have those of the workers.
    """
    text, call = look_call(destination, "", triggers)
    return looks(triggers, run_script(client, text, *call))


def forget_rates(client: Redis, destinations: Iterable[Destination]) -> None:
    """Forget the rates that workers were given before, so that one just loaded holds at once.

    A process that still runs with a lower rate tells it again with its next request.
    """
    for destination in destinations:
        key = keys.gate(gate_id(destination.base_url, destination.gate_scope))
        client.hdel(key, "rates")


def resume_gate(client: Redis, name: str, *, trigger: str = "") -> None:
    """Open a gate, a probe first; with a trigger, only let a probe of that one go first."""
    _ask(client, scripts.source("gate_resume"), name, trigger=trigger)


def _ask(client: Redis, text: str, name: str, **values: Any) -> Any:
    return run_script(client, text, *script_call(text, gate=keys.gate(name), **values))


def _look(rate: float, fingerprint: str, triggers: Sequence[str]) -> dict[str, Any]:
    return {
        "rate": repr(rate),
        "fingerprint": fingerprint,
        "worth_waiting": round(WORTH_WAITING_SECONDS * MICROSECONDS),
        "triggers": " ".join(triggers),
    }


def _open(answer: Sequence[Any]) -> Open:
    _, state, probe = answer
    return Open(state.decode(), probe=bool(probe))


def _closed(answer: Sequence[Any]) -> Closed:
    _, state, reason, until, message = answer
    until_ms = None if until < 0 else until / 1000
    return Closed(state.decode(), reason.decode(), until_ms, message.decode())
