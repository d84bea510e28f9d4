"""The intake: bodies that arrive together share one write, and each gets its own answer.

While one write is under way, what arrives is drafted for the next. So a receiver under load makes
few large writes, and Redis hardly waits for them; an idle one writes at once. A body that is more
than one write's share is stored in portions: each write takes a portion of one of these, and the
bodies that have just come. The log's lines about the requests of one write are written together,
before any is answered. The answers, and how late the receiver's timers are, are kept for
`segrelay status`.

A body is read portion by portion, in bounded memory: gzip is unpacked, and never more than is asked
for, and a JSON text is split into its payloads without building what they hold.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from typing import Any, Final, NamedTuple, Self

import structlog

from segrelay.producer.events.payloads import Payload, load, values_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Portion, Published
from segrelay.worker.contract.processes import MOST_REQUESTS, WebhookRequest
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused, RedisMismatch, RedisUnavailable, SegrelayError
from segrelay.worker.logs import log_bug, log_often

_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_QUOTE, _ARRAY, _ARRAY_END = b'"[]'
_OPENING: Final = frozenset(b"{[")
_DEEPEST: Final = 1_024
"""The number of levels beyond which no parser of ours reads JSON."""

_MOST_TOKENS: Final = 3_000_000
"""The largest number of texts and brackets, which are looked at one by one: about three seconds."""
_BYTES_A_TOKEN: Final = 6

Extent = tuple[int, int]
"""The offsets of a payload in its text."""


def spans_of(text: bytes) -> Iterator[Extent]:
    """Yield the extent of each payload: elements of arrays, and values one after the other.

    What stands between them and is more than a comma is a payload, too: it can't be read, or is
    none. So nothing of a text is ever left out.

    Raises:
        ValueError: Its brackets or quotes don't match, it is nested deeper than 1,024 levels, or is
            made of more values than people's profiles are.
    """
    tokens = text.count(b'"') // 2 + text.count(b"{") + text.count(b"[")
    if tokens > max(_MOST_TOKENS, len(text) // _BYTES_A_TOKEN):
        raise ValueError("it is made of too many values")
    depth, begin, in_array = 0, len(_BOM) * text.startswith(_BOM), False
    for token in _TOKEN.finditer(text):
        kind = text[token.start()]
        if kind == _QUOTE:
            if token.end() - token.start() == 1:
                raise ValueError("a text is not closed")
            continue
        if kind in _OPENING:
            if depth == 0:
                yield from _between(text, begin, token.start())
                begin = token.start()
                if kind == _ARRAY and not in_array:
                    in_array, begin = True, token.end()
                    continue
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"it is nested deeper than {_DEEPEST:,} levels")
        elif depth:
            depth -= 1
            if depth == 0:
                yield begin, token.end()
                begin = token.end()
        elif in_array and kind == _ARRAY_END:
            yield from _between(text, begin, token.start())
            in_array, begin = False, token.end()
        else:
            raise ValueError("a bracket closes nothing")
    if depth or in_array:
        raise ValueError("a bracket is not closed")
    yield from _between(text, begin, len(text))


def _between(text: bytes, begin: int, end: int) -> Iterator[Extent]:
    if text[begin:end].strip(_SPACE) not in (b"", b","):
        yield begin, end


class BodyTooLarge(Exception):  # noqa: N818 - an answer, no error of ours
    """A body is larger than the receiver takes, or holds more payloads."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def unpack(body: bytes, most: int) -> bytes:
    """Return the content of a gzip body; the body as it came where it is damaged, or is no gzip.

    Raises:
        BodyTooLarge: It unpacks to more than `most` bytes.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error):
        return body
    if len(content) > most:
        raise BodyTooLarge(f"larger than {most:,} bytes")
    return content


MOST_PAYLOADS: Final = 10_000
"""The largest number of payloads in a body. Lytics sends at most 1,000."""
SMALL_BYTES: Final = 1024 * 1024
"""The size up to which a text is parsed as a whole, which takes at most 30 MB of memory."""
MOST_VALUES: Final = 500_000
"""The largest number of values in a payload, which takes at most 50 MB as objects of Python."""


@dataclass(slots=True)
class Body:
    """One request's body, and how much of it is stored.

    Args:
        text: JSON: one payload, an array of them, or several of these one after the other.
        most: A body of more payloads is refused before anything of it is stored.

    Attributes:
        stored: The results of the payloads so far.
        taken: The number of payloads that `payloads` has handed out.
        refusal: The reason why nothing of it can be stored, ever.
    """

    text: bytes
    most: int = MOST_PAYLOADS
    stored: Published = field(default_factory=Published)
    taken: int = 0
    refusal: BodyTooLarge | None = None
    _position: int = 0
    _count: int | None = None
    _spans: array[int] | None = field(default=None, repr=False)

    @property
    def is_ended(self) -> bool:
        """Say whether all of the body is stored, or nothing can be."""
        return self.refusal is not None or self._position == self._count

    def prepare(self) -> None:
        """Find the payloads of a large body, which may take seconds.

        Raises:
            BodyTooLarge: It holds more payloads than are taken.
        """
        if len(self.text) > SMALL_BYTES:
            self._split()

    def payloads(self) -> Iterator[Payload]:
        """Yield the payloads that are not stored yet; nothing where there is a `refusal`."""
        self.taken = self._position
        try:
            found = self._found()
        except BodyTooLarge as refusal:
            self.refusal = refusal
            return
        for payload in found:
            self.taken += 1
            yield payload

    def advance(self, stored: Published) -> None:
        """Record that the payloads that were taken are stored."""
        self.stored = self.stored + stored if self._position else stored
        self._position = self.taken

    def _found(self) -> Iterator[Payload]:
        if self._spans is None and len(self.text) <= SMALL_BYTES:
            try:
                values = values_of(load(self.text))
            except PayloadRefused:
                pass  # it may be several values, or an array with one that is broken
            else:
                self._count_to(len(values))
                rest = range(self._position, len(values))
                return (_payload(b"", values[index], index) for index in rest)
        if self._spans is None:
            self._split()
        return self._split_off()

    def _split(self) -> None:
        spans = array("Q")
        try:
            for begin, end in spans_of(self.text):
                spans.extend((begin, end))
                if len(spans) > 2 * self.most:
                    break
        except ValueError:
            spans = array("Q")
        self._spans = spans or array("Q", (0, len(self.text)))
        self._count_to(len(self._spans) // 2)

    def _count_to(self, count: int) -> None:
        if count > self.most:
            raise BodyTooLarge(f"made of more than {self.most:,} payloads")
        self._count = count

    def _split_off(self) -> Iterator[Payload]:
        spans = self._spans or array("Q")
        for index in range(self._position, len(spans) // 2):
            begin, end = spans[2 * index : 2 * index + 2]
            yield _read(self.text[begin:end], index)


def _payload(text: bytes, value: Any, index: int) -> Payload:
    # An array within an array is no array of payloads.
    return Payload(text, [value] if isinstance(value, list) and value else value, index=index)


def _read(text: bytes, index: int) -> Payload:
    if len(text) > MOST_VALUES < text.count(b",") + text.count(b"{") + text.count(b"["):
        message = f"A payload holds more than the {MOST_VALUES:,} values that are read."
        return Payload(text, None, 0, index, message, Refusal.TOO_LARGE)
    try:
        return _payload(text, load(text), index)
    except PayloadRefused as refusal:
        return Payload(text, None, 0, index, refusal.message)


LARGE_BODIES_BYTES: Final = 48 * 1024 * 1024
"""The bytes of other requests above which the sender of a large body is asked to send it again."""
ALL_BODIES_BYTES: Final = 2 * LARGE_BODIES_BYTES
"""The bytes of other requests above which the sender of any body is asked to send it again."""


class NoMemory(Exception):  # noqa: N818 - an answer, no error of ours
    """Too many bytes are in memory for this body; it should be sent again."""


@dataclass(slots=True)
class BodyMemory:
    """The bytes of all requests that are not answered yet."""

    used: int = 0


class HeldMemory:
    """The bytes of one request, which count until the end of the `with` block, or `release`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def take(self, size: int) -> None:
        """Add a number of bytes to the count.

        Raises:
            NoMemory: The others take too much.
        """
        self.size += size
        self._memory.used += size
        most = ALL_BODIES_BYTES if self.size <= SMALL_BYTES else LARGE_BODIES_BYTES
        if self._memory.used - self.size > most:
            raise NoMemory

    def release(self, *_: object) -> None:
        """Count the request no more: it is answered."""
        self._memory.used -= self.size
        self.size = 0

    __exit__ = release


GROUP_BODIES: Final = 1_000
GROUP_BYTES: Final = 4 * 1024 * 1024
_WORTH_A_TURN: Final = 8
"""The bodies for which the drafting thread is woken while it waits for the write to end: each turn
of it costs the event loop as much as drafting a body."""
LOG: Final = structlog.get_logger()

DraftBodies = Callable[[Iterable[Body]], Callable[[], None]]
"""A function that drafts a portion of each body, and returns the function that stores the draft.

It may stop before the last body. Those that it took know after storing how much of them is stored.
Both raise RedisUnavailable if Redis is full or away; some of the portions may be stored then. They
run in different threads if another group is drafted while one is stored.
"""


LineOf = Callable[[Published], Mapping[str, object]]
"""A function that returns a request's line for the log from the counts of its events."""


Outcome = Callable[[Published | Exception], None]
"""A function that is called, in the event loop, with a body's counts or the error that it met."""


class _Waiting(NamedTuple):
    """A body, who waits for its outcome, and the log's line about it.

    Attributes:
        is_alone: True if it shares its write with no other, because a group with it has failed.
    """

    body: Body
    tell: Outcome
    line: LineOf | None
    is_alone: bool = False


class _Group(NamedTuple):
    """A group whose turn is over.

    Attributes:
        members: The bodies that are stored or refused; after an error, all of the group.
        error: Why it failed.
    """

    members: list[_Waiting]
    error: Exception | None = None


@dataclass(slots=True)
class Intake:
    """Groups bodies and has them stored, in two threads that take turns.

    One thread drafts what arrives, as long as the other one writes a group; then it writes that.
    """

    draft: DraftBodies
    _fresh: deque[_Waiting] = field(default_factory=deque)
    _begun: deque[_Waiting] = field(default_factory=deque)
    _changed: Condition = field(default_factory=Condition)
    _is_drafting: bool = False
    _is_writing: bool = False
    _loop: asyncio.AbstractEventLoop | None = None
    _groups: int = 0
    _ended: asyncio.Future[None] | None = None
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="intake")
    )

    async def take(self, body: Body, line: LineOf | None = None) -> Published:
        """Store one body together with those that arrive meanwhile; see `put`.

        Raises:
            RedisUnavailable: Not all of it may be stored; the sender should send it again.
            BodyTooLarge: It holds more payloads than are taken; nothing of it is stored.
        """
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self.put(body, partial(_resolve, answer), line)
        return await answer

    def put(self, body: Body, tell: Outcome, line: LineOf | None = None) -> None:
        """Have one body stored together with those that arrive meanwhile.

        Args:
            body: The body of one request.
            tell: The function that is told the outcome; an error is one that `take` raises.
            line: The function that makes its line of the log; None = it is not logged.
        """
        self._loop = asyncio.get_running_loop()
        with self._changed:
            self._fresh.append(_Waiting(body, tell, line))
            if len(self._fresh) >= _WORTH_A_TURN:
                self._changed.notify()
        self._begin_group()

    async def close(self) -> None:
        """Store what still waits."""
        if self._groups:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        self._threads.shutdown()

    def _begin_group(self) -> None:
        """Have a thread begin a group, unless one is drafting, or nothing waits."""
        if self._is_drafting or not (self._fresh or self._begun):
            return
        self._is_drafting = True
        self._groups += 1
        self._threads.submit(self._run_group)

    def _run_group(self) -> None:
        group = self._store_group()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._conclude, group)

    def _store_group(self) -> _Group:
        """Draft a group until no other one is being written, and write it. In a thread."""
        members: list[_Waiting] = []
        try:
            store = self.draft(self._bodies(members))
        except Exception as error:  # noqa: BLE001 - whoever waits for it is answered
            return self._undrafted(members, error)
        self._begin_to_write()
        begun: list[_Waiting] = []
        try:
            store()
            begun = [each for each in members if not each.body.is_ended]
            return _Group([each for each in members if each.body.is_ended])
        except Exception as error:  # noqa: BLE001 - likewise
            return _Group(members, error)
        finally:
            with self._changed:
                self._is_writing = False
                self._begun.extend(begun)
                self._changed.notify()

    def _bodies(self, members: list[_Waiting]) -> Iterator[Body]:
        """Yield bodies for the group that is drafted, and add them to its members."""
        size, has_begun = 0, False
        while len(members) < GROUP_BODIES and size < GROUP_BYTES:
            with self._changed:
                while self._is_writing and not (self._fresh or self._begun):
                    self._changed.wait()
                if self._begun and not has_begun:
                    waiting, has_begun = self._begun.popleft(), True
                elif self._fresh and not (members and self._fresh[0].is_alone):
                    waiting = self._fresh.popleft()
                    size += len(waiting.body.text)
                else:
                    return
            members.append(waiting)
            yield waiting.body
            if waiting.is_alone:
                return

    def _begin_to_write(self) -> None:
        """Wait until the other group is written, and let the next one be drafted."""
        with self._changed:
            while self._is_writing:
                self._changed.wait()
            self._is_writing, self._is_drafting = True, False
            if self._fresh or self._begun:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._begin_group)

    def _undrafted(self, members: list[_Waiting], error: Exception) -> _Group:
        """Return a group that could not be drafted; where Redis is away, with all that waits."""
        with self._changed:
            if isinstance(error, SegrelayError):
                while self._fresh and len(members) < GROUP_BODIES:
                    members.append(self._fresh.popleft())
            self._is_drafting = False
        return _Group(members, error)

    def _conclude(self, group: _Group) -> None:
        """Answer the requests of a group."""
        self._groups -= 1
        members, error = group
        if error is None:
            _log(members)
            for each in members:
                _tell(each, each.body.refusal or each.body.stored)
        elif isinstance(error, SegrelayError) or len(members) == 1:
            for each in members:
                _tell(each, error)
        else:  # one body must not cost its neighbours anything
            LOG.error("webhook.failed", bodies=len(members), error=type(error).__name__)
            with self._changed:
                self._fresh.extendleft(each._replace(is_alone=True) for each in reversed(members))
        self._begin_group()
        if self._ended is not None and not (self._groups or self._ended.done()):
            self._ended.set_result(None)


def _log(members: Iterable[_Waiting]) -> None:
    """Log the bodies that are stored; they are answered also where the disk of the log is full."""
    stored = [each for each in members if each.body.refusal is None]
    lines = [one.line(one.body.stored) for one in stored if one.line]
    with suppress(OSError):
        log_often("webhook.answered", lines)


def _tell(waiting: _Waiting, outcome: Published | Exception) -> None:
    try:
        waiting.tell(outcome)
    except Exception as error:  # noqa: BLE001 - one body must not cost its neighbours anything
        log_bug(error, "webhook.failed")


def _resolve(answer: asyncio.Future[Published], outcome: Published | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


PORTION: Final = Portion(1_000, 4 * 1024 * 1024)
"""The events and bytes of one body in one write: a body of Lytics, at most 0.1 s of work."""
_TOGETHER: Final = Portion(2_000, 8 * 1024 * 1024)
"""The events and bytes of all bodies in one write."""


def draft_bodies(publisher: Publisher, bodies: Iterable[Body]) -> Callable[[], None]:
    """Draft a portion of each body for a publisher; see `DraftBodies`."""
    taken: list[Body] = []

    def payloads() -> Iterator[Iterator[Payload]]:
        for body in bodies:
            taken.append(body)
            yield body.payloads()

    draft, published = publisher.draft_each(payloads(), portion=PORTION, together=_TOGETHER)

    def store() -> None:
        publisher.write_draft(draft)
        for body, each in zip(taken, published, strict=True):
            body.advance(each)

    return store


EVERY_SECONDS: Final = 5.0
ENDS: Final = -1
_OK: Final = 200
_UNAUTHORIZED: Final = 401


@dataclass(slots=True)
class AnswerRecord:
    """Counts answers in memory, and reports them every few seconds, so that no request waits.

    Args:
        tell: Writes them to Redis, as `report_receiver` does.
        look: Called before; looks whether Redis still holds what it held.
        keep: Keeps the requests in Redis.
    """

    tell: Callable[..., None]
    look: Callable[[], None] = lambda: None
    keep: Callable[[Sequence[WebhookRequest]], None] = lambda _: None
    every_seconds: float = EVERY_SECONDS
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
            due_at = time.monotonic() + self.every_seconds
            await asyncio.sleep(self.every_seconds)
            lag_before_ms, lag_ms = lag_ms, round(1_000 * (time.monotonic() - due_at))

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
