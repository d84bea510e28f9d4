"""The intake: bodies that arrive together share one write, and each gets its own answer.

What arrives while a write is under way goes with the next one. So a receiver under load makes few
large writes, and Redis hardly waits for them; an idle one writes at once. A body that is more
than one write's share is stored in portions: each write takes a portion of one of these, and the
bodies that have just come. The answers, and how late the receiver's timers are, are kept for
`segrelay status`.

A body is read in bounded memory: gzip is unpacked, and never more than is asked for, and what would
be too many objects is not built.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Self, cast

import structlog

from segrelay.producer.events.payloads import Payload, load, values_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Portion, Published
from segrelay.producer.sources.blocks import Block
from segrelay.worker.contract.processes import MOST_REQUESTS, WebhookRequest
from segrelay.worker.errors import PayloadRefused, RedisMismatch, RedisUnavailable, SegrelayError


class RequestRefused(Exception):  # noqa: N818 - an answer, no error of ours
    """A request is answered without being stored."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


TOO_LARGE: Final = 413


def body_too_large(what: str) -> RequestRefused:
    """Return the answer to a body that is larger than the receiver takes, or holds too much."""
    return RequestRefused(TOO_LARGE, f"The body is {what}; make the job's batches smaller.")


def unpack(body: bytes, most: int) -> bytes:
    """Return the content of a gzip body; the body as it came where it is damaged, or is no gzip.

    Raises:
        RequestRefused: It unpacks to more than `most` bytes.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error):
        return body
    if len(content) > most:
        raise body_too_large(f"larger than {most:,} bytes")
    return content


MOST_PAYLOADS: Final = 10_000
"""The largest number of payloads in a body. Lytics sends at most 1,000."""
SMALL_BYTES: Final = 1024 * 1024
"""The size up to which a body is stored beside a large one."""
_BYTES_A_VALUE: Final = 16
_MOST_VALUES: Final = 1_000_000
"""The largest number of values in a body of less than 16 bytes for each: about 100 MB as objects of
Python, where profiles of people take 25 to 30 bytes for each."""


@dataclass(slots=True)
class Body:
    """One request's body, and how much of it is stored.

    Args:
        text: The JSON text: one payload, an array of them, or several of these, as in a file.
        most: The number of payloads beyond which a body is refused before anything of it is stored.

    Attributes:
        stored: The results of the payloads so far.
        taken: The number of payloads that `payloads` has handed out.
        refusal: The reason why nothing of it can be stored, ever.
    """

    text: bytes
    most: int = MOST_PAYLOADS
    stored: Published = field(default_factory=Published)
    taken: int = 0
    refusal: RequestRefused | None = None
    _position: int = 0
    _rest: list[Payload] | None = field(default=None, repr=False)

    @property
    def is_ended(self) -> bool:
        """Say whether all of the body is stored, or nothing can be."""
        return self.refusal is not None or (self._rest == [] and self.taken == self._position)

    def prepare(self) -> list[Payload]:
        """Read the body, unless it is read already; return what is not taken yet, the last first.

        Raises:
            RequestRefused: It holds more payloads or values than are taken.
        """
        if self._rest is None:
            self._rest = _payloads_in(self.text, self.most)[self._position :][::-1]
        return self._rest

    def payloads(self) -> Iterator[Payload]:
        """Yield the payloads that are not stored yet; nothing where there is a `refusal`."""
        if self.taken != self._position:  # what was taken has not been stored
            self._rest, self.taken = None, self._position
        try:
            rest = self.prepare()
        except RequestRefused as refusal:
            self.refusal = refusal
            return
        while rest:  # one after the other, so that the memory of each serves for the next
            self.taken += 1
            yield rest.pop()

    def advance(self, stored: Published) -> None:
        """Record that the payloads that were taken are stored."""
        self.stored = self.stored + stored if self._position else stored
        self._position = self.taken


def _payloads_in(text: bytes, most: int) -> list[Payload]:
    """Return the payloads of a body.

    A body that is no JSON as a whole is read as a file is: by lines and values. A part that can't
    be read is a payload with an error, so that it reaches the quarantine.
    """
    most_values = max(_MOST_VALUES, len(text) // _BYTES_A_VALUE)
    if len(text) > most_values < sum(map(text.count, (b",", b"{", b"[", b"\n"))):
        raise body_too_large(f"made of more than {_MOST_VALUES:,} values")
    try:
        found: Iterator[Payload] = (
            # An array within an array is no array of payloads.
            Payload(b"", [value] if isinstance(value, list) and value else value, index=index)
            for index, value in enumerate(values_of(load(text)))
        )
    except PayloadRefused:
        found = Block(1, text).payloads()
    payloads = list(islice(found, most + 1))
    if len(payloads) > most:
        raise body_too_large(f"made of more than {most:,} payloads")
    return payloads or [Payload(text, None, error="The body is empty.")]


LARGE_BODIES_BYTES: Final = 48 * 1024 * 1024
"""The bytes of other requests above which the sender of a large body is asked to send it again."""
ALL_BODIES_BYTES: Final = 2 * LARGE_BODIES_BYTES
"""The bytes of other requests above which the sender of any body is asked to send it again."""


@dataclass(slots=True)
class BodyMemory:
    """The bytes of all requests that are not answered yet."""

    used: int = 0


class HeldMemory:
    """The bytes of one request, which count until the end of the `with` block."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def take(self, size: int) -> None:
        """Add a number of bytes to the count.

        Raises:
            RequestRefused: The others take too much.
        """
        self.size += size
        self._memory.used += size
        most = ALL_BODIES_BYTES if self.size <= SMALL_BYTES else LARGE_BODIES_BYTES
        if self._memory.used - self.size > most:
            raise RequestRefused(503, "Too many large requests are under way; send it again.")

    def __exit__(self, *_: object) -> None:
        self._memory.used -= self.size


GROUP_BODIES: Final = 1_000
GROUP_BYTES: Final = 4 * 1024 * 1024
LOG: Final = structlog.get_logger()

StoreBodies = Callable[[Sequence[Body]], None]
"""A function that stores a portion of each body; it may stop before the last body.

Each body knows afterwards how much of it is stored. It raises RedisUnavailable if Redis is full or
away; some of the portions may be stored then.
"""


class _Waiting(NamedTuple):
    """A body, and the future of its counts or of the error that it meets.

    Attributes:
        is_alone: True if it shares its write with no other, because a group with it has failed.
    """

    body: Body
    outcome: asyncio.Future[Published]
    is_alone: bool = False

    def tell(self, outcome: Published | Exception) -> None:
        """Tell who waits the outcome, unless they have gone."""
        if self.outcome.done():
            return
        if isinstance(outcome, Exception):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


@dataclass(slots=True)
class Intake:
    """Groups bodies and has them stored in a thread, one group after the other."""

    store: StoreBodies
    _fresh: deque[_Waiting] = field(default_factory=deque)
    _begun: deque[_Waiting] = field(default_factory=deque)
    _is_storing: bool = False
    _ended: asyncio.Future[None] | None = None
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="intake")
    )

    async def take(self, body: Body) -> Published:
        """Store one body together with those that arrive meanwhile.

        Raises:
            RedisUnavailable: Not all of it may be stored; the sender should send it again.
            RequestRefused: It holds more payloads than are taken; nothing of it is stored.
        """
        waiting = _Waiting(body, asyncio.get_running_loop().create_future())
        self._fresh.append(waiting)
        self._begin_group()
        return await waiting.outcome

    async def close(self) -> None:
        """Store what still waits."""
        if self._is_storing:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        self._thread.shutdown()

    def _begin_group(self) -> None:
        """Have the thread store a group, unless it is storing one, or nothing waits."""
        if self._is_storing or not (self._fresh or self._begun):
            return
        self._is_storing = True
        members = self._next_group()
        stored = asyncio.get_running_loop().run_in_executor(
            self._thread, self.store, [each.body for each in members]
        )
        stored.add_done_callback(partial(self._conclude, members))

    def _next_group(self) -> list[_Waiting]:
        """Take one body that is stored in part, and those that came first of the others."""
        members = [self._begun.popleft()] if self._begun else []
        size = 0
        while self._fresh and len(members) < GROUP_BODIES and size < GROUP_BYTES:
            if members and (members[-1].is_alone or self._fresh[0].is_alone):
                break
            members.append(self._fresh.popleft())
            size += len(members[-1].body.text)
        return members

    def _conclude(self, members: Sequence[_Waiting], stored: asyncio.Future[None]) -> None:
        """Answer the requests of a group."""
        self._is_storing = False
        error = cast("Exception | None", stored.exception())
        if error is None:
            ended = [each for each in members if each.body.is_ended]
            unreached = [each for each in members if not (each.body.is_ended or each.body.taken)]
            self._begun += (each for each in members if each.body.taken and not each.body.is_ended)
            self._fresh.extendleft(reversed(unreached))
            for each in ended:
                each.tell(each.body.refusal or each.body.stored)
        elif isinstance(error, SegrelayError) or len(members) == 1:
            for each in members:
                each.tell(error)
        else:  # one body must not cost its neighbours anything
            LOG.error("webhook.failed", bodies=len(members), error=type(error).__name__)
            self._fresh.extendleft(each._replace(is_alone=True) for each in reversed(members))
        self._begin_group()
        if self._ended is not None and not (self._is_storing or self._ended.done()):
            self._ended.set_result(None)


PORTION: Final = Portion(1_000, 4 * 1024 * 1024)
"""The events and bytes of one body in one write: a body of Lytics, at most 0.1 s of work."""
_TOGETHER: Final = Portion(2_000, 8 * 1024 * 1024)
"""The events and bytes of all bodies in one write."""


def store_bodies(publisher: Publisher, bodies: Sequence[Body]) -> None:
    """Publish a portion of each body; see `StoreBodies`."""
    payloads = (body.payloads() for body in bodies)
    published = publisher.publish_each(payloads, portion=PORTION, together=_TOGETHER)
    for body, each in zip(bodies, published, strict=False):
        body.advance(each)


EVERY_SECONDS: Final = 5.0
ENDS: Final = -1
_OK: Final = 200
_UNAUTHORIZED: Final = 401


@dataclass(slots=True)
class AnswerRecord:
    """Counts answers in memory, and reports them every few seconds, so that no request waits.

    Args:
        tell: A function that writes the counts to Redis, as `report_receiver` does.
        look: A function, called before `tell`, that looks whether Redis still holds what it held.
        keep: A function that keeps the requests in Redis.
    """

    tell: Callable[..., None]
    look: Callable[[], None] = lambda: None
    keep: Callable[[Sequence[WebhookRequest]], None] = lambda _: None
    every_seconds: float = EVERY_SECONDS
    clock: Callable[[], float] = time.monotonic
    _answers: Counter[int] = field(default_factory=Counter)
    _since_taken: Counter[int] = field(default_factory=Counter)
    _requests: deque[WebhookRequest] = field(default_factory=lambda: deque(maxlen=MOST_REQUESTS))

    def note(self, request: WebhookRequest) -> None:
        """Count an answer, and remember its request."""
        self._answers[request.status] += 1
        if request.status == _OK:
            self._since_taken.clear()
        else:
            self._since_taken[request.status] += 1
        self._requests.append(request)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Report the answers while the receiver runs, and once more at its end."""
        task = asyncio.create_task(self._report_again())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.to_thread(self._flush, ENDS)

    async def _report_again(self) -> None:
        lag_ms = lag_before_ms = 0
        while True:
            # A machine that stood still once made one timer late: a starved receiver's all are.
            await asyncio.to_thread(self._flush, min(lag_ms, lag_before_ms))
            due_at = self.clock() + self.every_seconds
            await asyncio.sleep(self.every_seconds)
            lag_before_ms, lag_ms = lag_ms, round(1_000 * (self.clock() - due_at))

    def _flush(self, lag_ms: int) -> None:
        answers, self._answers = self._answers, Counter()
        since_taken, self._since_taken = self._since_taken, Counter()
        if answers[_UNAUTHORIZED]:
            LOG.warning("webhook.unauthorized", requests=answers[_UNAUTHORIZED])
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        try:
            self.look()
            self.keep(requests)
            self.tell(answers, since_taken, lag_ms=lag_ms, events=bool(answers[_OK]))
        except (RedisUnavailable, RedisMismatch):
            if not self._answers[_OK]:
                self._since_taken.update(since_taken)
            self._answers.update(answers)  # told with the next ones
            self._requests.extendleft(reversed(requests[: MOST_REQUESTS - len(self._requests)]))
