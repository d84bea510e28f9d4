"""Send one request: book its send time, write its intent, send it, read the answer, settle."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

import structlog

from segrelay.worker.batch.batch import Batch, Request
from segrelay.worker.batch.conclude import conclude, conclude_unfinished
from segrelay.worker.batch.delivery import Failure
from segrelay.worker.batch.pack import put_in_envelope, reduce
from segrelay.worker.batch.partition import Intent, Settlement
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.words import Death
from segrelay.worker.core.gate import APART, LIVE_FIRST, Closed, Open
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    Unreadable,
    Verdict,
    quoting_nobody,
)
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest, Silence
from segrelay.worker.errors import ConfigurationInvalid, SegrelayError
from segrelay.worker.logs import log_bug

LOOK_SECONDS: Final = 0.2
"""The seconds between two looks whether a wait or a request has to end."""
LONGEST_WAIT_SECONDS: Final = 1.0
"""A request that gets no send time within this is left to a later drain, which the sweep starts."""
BOOKINGS: Final = 5
"""The number of bookings in a row whose send times may have passed when Redis answers."""
LOG: Final = structlog.get_logger()


async def send(batch: Batch, request: Request) -> None:
    """Send one request, carry out what its answer means, and free its profiles."""
    try:
        if not await _book(batch, request):
            await _leave(batch, request)
            return
        if request.send_time.probe and len(request.deliveries) > 1:
            request = reduce(batch, request)
        problem = await put_in_envelope(request, batch.drain.renderer)
        if problem:
            await _give_back(batch, request)
            # It is halved until the delivery at fault is alone.
            if len(request.deliveries) > 1:
                batch.split(request)
            else:
                batch.fail(request.deliveries[0], Death.TEMPLATE_ERROR, problem)
            return
        rows = tuple([(each.position, each.header) for each in request.deliveries])
        request.intent = Intent(secrets.token_hex(8), rows)
        request.intent_ms = await batch.drain.partition.intent(request.intent)
        try:
            verdict = await _exchange(batch, request)
        except ConfigurationInvalid as error:
            await _give_back(batch, request)
            await _unsendable(batch, request, error.message)
        else:
            await _obey(batch, request, verdict)
    finally:
        batch.done(request)


async def _book(batch: Batch, request: Request) -> bool:
    """Book a send time and sleep until then; say whether there is one, and time for it."""
    drain = batch.drain
    for _ in range(BOOKINGS):
        booked = await drain.gate.book(
            kind=batch.kind, triggers=request.triggers, horizon_seconds=LONGEST_WAIT_SECONDS
        )
        if isinstance(booked, Closed):
            request.closed = booked
            return False
        request.send_time, request.is_booked = booked, True
        wait_seconds = (booked.at_ms - booked.now_ms) / 1000
        if wait_seconds > 0:
            batch.state.tally.waited_seconds += wait_seconds
            ends_at = drain.clock.seconds() + wait_seconds
            while not drain.stop.is_told and (left := ends_at - drain.clock.seconds()) > 0:
                await drain.clock.sleep(min(left, LOOK_SECONDS))
        if not drain.is_over and not booked.expired(batch.state.now_ms()):
            return True
        await _give_back(batch, request)
        if drain.is_over:
            return False
    LOG.warning("redis.slow", message=f"{BOOKINGS} send times had passed when Redis answered.")
    request.closed = Closed("ok", "redis_slow", None)
    return False


async def _give_back(batch: Batch, request: Request) -> None:
    """Give the send time back to the gate, because it is not used."""
    if request.is_booked:
        request.is_booked = False
        await batch.drain.gate.cancel(request.send_time)


async def may_write(batch: Batch, request: Request) -> bool:
    """Say whether a request may be written now: a send time that has passed is booked anew.

    Asked right before the first byte, because send time or lease may be over by then.
    """
    # By both clocks, since the process may have been stopped after it wrote its intent.
    now_ms = max(request.intent_ms, batch.state.now_ms())
    if request.is_booked and request.send_time.expired(now_ms):
        await _give_back(batch, request)
        is_booked = await _book(batch, request)
        if is_booked and request.send_time.probe and len(request.deliveries) > 1:
            await _give_back(batch, request)
    may = request.is_booked and not batch.drain.is_cut
    request.may_be_out |= may
    return may


async def _obey(batch: Batch, request: Request, verdict: Verdict) -> None:
    """Do what follows from the answer to a request, or from the lack of one."""
    drain, answer = batch.drain, request.answer
    if isinstance(answer, NoAnswer) and answer.is_ours:
        # It says nothing about the destination.
        await _give_back(batch, request)
        if answer.possibly_applied:
            batch.state.tally.requests += 1
            await conclude_unfinished(batch, request, answer.message)
        else:
            await batch.write(Settlement(intent_id=request.intent.intent_id))
            await _leave(batch, request)
        return
    batch.state.tally.requests += 1
    _log(drain.partition.keys, request, verdict)
    delivered = await conclude(batch, request, verdict)
    send_time, first = request.send_time, request.deliveries[0].position
    await drain.gate.report(send_time, verdict, delivered=delivered, batch=first)
    if send_time.probe and isinstance(verdict, Accepted):
        # All others have waited for the probe, or share no request.
        await _look(batch)


async def _leave(batch: Batch, request: Request) -> None:
    """Take back a request that was not sent, and look for which triggers the gate is open."""
    state, closed = batch.state, request.closed
    batch.again(request)
    if closed is None:
        return
    if closed.reason == LIVE_FIRST:
        batch.closed, state.yields = closed, True
    elif closed.reason != APART:
        batch.closed = closed
        state.shut.update(request.triggers)
        await _look(batch)
    else:
        looks = (await _look(batch)).values()
        batch.closed = next((each for each in looks if isinstance(each, Closed)), batch.closed)
        is_one_alone = any(map(state.is_preview, request.triggers))
        if not is_one_alone and state.shut.isdisjoint(request.triggers):
            # The obstacle is gone by now. They go apart, so that this does not repeat for ever.
            batch.apart.update(request.triggers)


async def _look(batch: Batch) -> Mapping[str, Open | Closed]:
    state, drain = batch.state, batch.drain
    looks = await drain.gate.look(drain.triggers.keys() - state.paused - state.shut)
    state.obey(looks)
    return looks


async def _exchange(batch: Batch, request: Request) -> Verdict:
    """Send a request whose intent is written, and return what its answer means.

    It is cut off when the lease is lost, or the time to stop is over.

    Raises:
        ConfigurationInvalid: Nothing was sent; see `Sender.send`.
    """
    drain = batch.drain
    request.begun_seconds = drain.clock.seconds()

    async def permit() -> bool:
        return await may_write(batch, request)

    try:
        outgoing = _outgoing(drain.partition.keys, request)
        sending = asyncio.ensure_future(
            drain.sender.send(outgoing, drain.request_deadline_seconds, permit)
        )
        while not (sending.done() or drain.is_cut):
            await asyncio.wait({sending}, timeout=LOOK_SECONDS)
        if sending.cancel():
            await asyncio.wait({sending})
            request.answer = NoAnswer(Silence.STOPPED, possibly_applied=request.may_be_out)
        else:
            request.answer = sending.result()
        verdict = _verdict(request)
    except SegrelayError:
        raise
    except Exception as error:  # noqa: BLE001 - it costs this one request
        verdict = Unreadable(log_bug(error, "request.failed"))
        request.answer = NoAnswer(Silence.CUT, possibly_applied=True)
    request.elapsed_seconds = drain.clock.seconds() - request.begun_seconds
    return verdict


def _outgoing(keys: PartitionKeys, request: Request) -> OutgoingRequest:
    trigger = request.trigger
    deliveries = (
        f"{keys.destination}|{delivery.position}|{delivery.digest.hex()}"
        for delivery in request.deliveries
    )
    headers = {
        **trigger.api.headers(deliveries, request.deliveries[0].shaped.root),
        **trigger.headers,
        **trigger.api.signature(request.url, request.body),
    }
    return OutgoingRequest(
        request.url,
        headers,
        trigger.params,
        request.body,
        trigger.api_name,
        trigger.api.method,
        trigger.api.networks,
        trigger.token_of,
        trigger.authority,
    )


async def _unsendable(batch: Batch, request: Request, message: str) -> None:
    """Dead-letter deliveries whose own URL can't be used; else pause the request's triggers."""
    intent_id = request.intent.intent_id
    if any(delivery.shaped.url for delivery in request.deliveries):
        failed = [each.fail(Death.INVALID, message) for each in request.deliveries]
        await batch.write(Settlement(await batch.dead(failed), intent_id))
        return
    await batch.write(Settlement(intent_id=intent_id))
    for trigger in request.triggers:
        await batch.drain.streaks.pause(trigger, Failure(Death.INVALID, message))
        batch.leave(trigger)


def _verdict(request: Request) -> Verdict:
    answer, api = request.answer, request.trigger.api
    if isinstance(answer, NoAnswer):
        return answer.verdict
    users = [user for person in request.people for user in person[0].users]
    verdict = api.classify(answer, users, request.url)
    return quoting_nobody(verdict, api.words, _all_values(request, users), users)


def _log(keys: PartitionKeys, request: Request, verdict: Verdict) -> None:
    answer = request.answer
    # Refused credentials pause the destination until somebody acts.
    tell = LOG.error if isinstance(verdict, AccessRefused) else LOG.info
    tell(
        "request.answered",
        destination=keys.destination,
        partition=keys.number,
        triggers=len(request.triggers),
        trigger=request.triggers[0],
        users=request.user_count,
        deliveries=len(request.deliveries),
        bytes=len(request.body),
        status=answer.status if isinstance(answer, Answer) else answer.kind.value,
        verdict=type(verdict).__name__,
        elapsed_seconds=round(request.elapsed_seconds, 3),
    )


def _all_values(request: Request, users: Sequence[bytes]) -> bytes:
    """Return a text with every value that was sent, not escaped as in a form or a URL."""
    if not request.deliveries[0].shaped.url and request.body[:1] in (b"{", b"["):
        return request.body
    return b"\n".join((*users, unquote(request.url).encode()))
