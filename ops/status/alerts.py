"""Messages about problems: each is told once, again while it lasts, and once when it is over.

Every long-running process looks at the health of the installation, one of them at a time. The table
of open problems stands in Redis, beside the lock of the process that looks and sends. Processes
can't agree there while Redis can't be reached. So of each machine's processes, the one that has
locked the configuration file tells about that, from a table in its memory.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import httpx
import orjson
import structlog

from segrelay.ops.embedded import why_full
from segrelay.ops.status.health import (
    AFTER_REDIS_MS,
    FOUND_AGAIN_MS,
    UNHEARD,
    UNREACHABLE,
    problems_of,
)
from segrelay.ops.status.problems import ILL, HealthProblem, in_short
from segrelay.ops.status.standing import (
    FAILING,
    AlertFailure,
    Standing,
    WatchedFile,
    read_failure,
    read_newest,
)
from segrelay.worker.contract import keys
from segrelay.worker.contract.connections import why_no_answer
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.processes import WORKER
from segrelay.worker.contract.records import read_record
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.redis.lock import Lock, take_turn
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import NotifySettings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import RedisUnavailable, SegrelayError
from segrelay.worker.logs import log_bug

ROUND_SECONDS: Final = 1.0
LOOK_MS: Final = 1_900
OUTAGE_MS: Final = 5_000
"""The time for which Redis has to be away until it is told; a restart is over sooner."""
CLAIM_MS: Final = 15_000
"""The time after which another process goes on for one that was killed while it sent."""
FRESH_SECONDS: Final = 5.0
"""The part of `CLAIM_MS` in which a process begins to send; later it may be another's turn."""
STALE_MS: Final = 5_000
"""The age from which on a look at health is not used: its process stood still."""
STAND_BACK_SECONDS: Final = 10.0
"""Seconds for which a process with an older configuration leaves it to the others to look."""
POST_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 3.0
LOG: Final = structlog.get_logger()
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
CALM_MS: Final = 10_000
"""The time without a problem after which it is over."""
SETTLES_MS: Final = 10_000
"""The time for which a problem that is not `ill` has to last to be told: it may become `ill`."""
LONGEST_WAIT_MS: Final = 60_000
MOST_OPEN: Final = 200
OPEN: Final = "open"
AlertKind = Literal["problem", "problem_lasts", "problem_over"]


class PostResult(NamedTuple):
    """The result of posting a message: why it was not taken ("" = it was), or in doubt."""

    failure: str = ""
    is_in_doubt: bool = False


@dataclass(slots=True)
class OpenProblem:
    """A problem that was seen, and what was told about it.

    Args:
        seen_ms: The time when it was seen last.
        told_ms: The time of the last message; 0 = there was none.
        told_severity: The severity in that message.
    """

    problem: HealthProblem
    since_ms: int
    seen_ms: int
    told_ms: int = 0
    told_severity: str = ""


@dataclass(slots=True)
class AlertTable:
    """The open problems by name and subject, and why the last message was not taken.

    Args:
        least_ms: The shortest time for which a problem has to last to be told.
    """

    settings: NotifySettings
    problems: dict[str, OpenProblem] = field(default_factory=dict)
    failing: AlertFailure | None = None
    least_ms: int = 0

    @classmethod
    def read(cls, settings: NotifySettings, text: bytes, client: Redis) -> AlertTable:
        """Return the table that Redis keeps, without what can't be read."""
        stored = orjson.loads(text or b"{}").items()
        read = {key: read_record(OpenProblem, one) for key, one in stored}
        return cls(settings, {key: one for key, one in read.items() if one}, read_failure(client))

    def fields(self) -> dict[str, bytes]:
        """Return the fields of the hash in which Redis keeps the table."""
        failing = orjson.dumps(self.failing) if self.failing else b""
        return {OPEN: orjson.dumps(self.problems), FAILING: failing}

    def observe(self, problems: Iterable[HealthProblem], now_ms: int) -> None:
        """Enter the problems that are there now; the clock may have been set back."""
        seen: dict[str, HealthProblem] = {}
        for problem in problems:
            key = f"{problem.name}|{problem.subject}"
            told = [seen[key].message] if key in seen else []
            seen[key] = replace(problem, message="; ".join([*told, problem.message]))
        known = {
            key: one
            for key, one in self.problems.items()
            if key in seen or one.told_ms or (self.failing and self._has_stood(one))
        }
        for one in known.values():
            times = (one.since_ms, one.seen_ms, one.told_ms)
            one.since_ms, one.seen_ms, one.told_ms = (min(at_ms, now_ms) for at_ms in times)
        for key, problem in seen.items():
            entry = known.setdefault(key, OpenProblem(problem, now_ms, now_ms))
            entry.problem = replace(problem, since_ms=problem.since_ms or entry.since_ms)
            entry.seen_ms = now_ms
        self.problems = dict(sorted(known.items(), key=lambda each: each[1].seen_ms)[-MOST_OPEN:])

    def tell_next(self, post: Callable[[AlertKind, OpenProblem], PostResult], now_ms: int) -> bool:
        """Send the first message that is due; return whether there was one and it was taken."""
        before = self.failing
        wait_ms = min(LONGEST_WAIT_MS, 1_000 * 2 ** (before.tries - 1)) if before else 0
        due = ((key, one, self._due(one, now_ms)) for key, one in self.problems.items())
        key, one, kind = next((each for each in due if each[2]), ("", None, None))
        if not one or not kind or (before and 0 <= now_ms - before.last_ms < wait_ms):
            return False
        result = post(kind, one)
        # A message without an answer is sent once more, and no third time.
        if not result.failure or (result.is_in_doubt and before):
            one.told_ms, one.told_severity = now_ms, one.problem.severity
            if kind == "problem_over":
                del self.problems[key]
        since_ms, tries = (before.since_ms, before.tries) if before else (now_ms, 0)
        failing = AlertFailure(since_ms, tries + 1, result.failure, now_ms)
        self.failing = failing if result.failure else None
        return not result.failure

    def _due(self, one: OpenProblem, now_ms: int) -> AlertKind | None:
        is_ill, told_ms = one.problem.severity == ILL, one.told_ms
        if now_ms - one.seen_ms >= CALM_MS:
            return "problem_over"
        if not told_ms or (is_ill and one.told_severity != ILL):
            return "problem" if self._has_stood(one) else None
        remind_ms = 1_000 * self.settings.remind_after_seconds
        return "problem_lasts" if is_ill and 0 < remind_ms <= now_ms - told_ms else None

    def _has_stood(self, one: OpenProblem) -> bool:
        least_ms = self.least_ms if one.problem.severity == ILL else SETTLES_MS
        held_ms = max(1_000 * self.settings.after_seconds, least_ms)
        return one.seen_ms - one.since_ms >= held_ms


def forget_failure(client: Redis) -> None:
    """Forget that messages were not taken: one was, just now."""
    client.hdel(keys.ALERTS, FAILING)


def post(
    kind: AlertKind, one: OpenProblem, settings: NotifySettings, docs_url: str = ""
) -> PostResult:
    """Post a message, and log whether it was taken. The failure never names the URL.

    Only the status of the answer is read: a body that trickles in holds nothing up.
    """
    result = PostResult()
    try:
        with httpx.stream(
            "POST",
            settings.url.reveal(),
            json=body_of(kind, one, settings, docs_url),
            timeout=httpx.Timeout(POST_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
        ) as answer:
            if not answer.is_success:
                elsewhere = "it sends us elsewhere, which is not followed:"
                how = elsewhere if answer.is_redirect else "it answered"
                result = PostResult(f"{how} {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL)
        reason = f"it does not answer ({why_no_answer(error)})"
        result = PostResult(reason, not isinstance(error, unsent))
    if result.failure:
        LOG.warning("alert.failed", problem=one.problem.name, reason=result.failure)
    else:
        LOG.info("alert.sent", problem=one.problem.name, kind=kind)
    return result


@dataclass(slots=True)
class Announcer:
    """Judges health and sends messages, round after round, in a thread of its own.

    Args:
        client: The client of its thread alone, with short timeouts.
        outage: The table of this process about Redis being away.
    """

    client: Redis
    file: WatchedFile
    settings: NotifySettings
    outage: AlertTable
    _machine_lock: int | None = None
    _is_ended: threading.Event = field(default_factory=threading.Event)
    _worker_seen_at: float = float("-inf")
    _stands_back_until: float = 0.0
    _working: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Run rounds until told to end; no failure ends them."""
        while not self._is_ended.wait(ROUND_SECONDS):
            with self._working:
                try:
                    self.look_for_redis(self._failure_of_round())
                except Exception as error:  # noqa: BLE001 - the edge of the thread
                    log_bug(error, "alerts.failed")

    def end(self) -> None:
        """Tell the thread to end, and let it finish the message that it is sending."""
        self._is_ended.set()
        if self._working.acquire(timeout=POST_SECONDS + CONNECT_SECONDS):
            self._working.release()

    def _failure_of_round(self) -> str:
        try:
            self.round()
        except RedisUnavailable as error:
            # Others may have been silent because of it, and need a moment to be heard again.
            self._stands_back_until = time.monotonic() + AFTER_REDIS_MS / 1_000
            redis = self.file.settings.redis
            return (redis.url == EMBEDDED and why_full(redis.data_dir)) or error.message
        except SegrelayError as error:
            LOG.debug("alerts.wait", message=error.message)
        return ""

    def look_for_redis(self, failure: str) -> None:
        """Tell that this machine does not reach Redis, and that it does again; "" = it does."""
        now_ms, machine = round(time.time() * 1_000), socket.gethostname()
        message = (
            f"this machine has no connection to Redis, so it sends and stores nothing: {failure}"
        )
        down = HealthProblem(UNREACHABLE, ILL, machine, message, "segrelay redis status")
        self.outage.observe([down] if failure else [], now_ms)
        if self.outage.problems and self._speaks_for_machine():
            self.outage.tell_next(self._post, now_ms)
        elif not self.outage.problems:
            self._unlock()

    def _speaks_for_machine(self) -> bool:
        """Lock the configuration file; return whether this process has it, or nobody can."""
        if self._machine_lock is None:
            with suppress(OSError):
                self._machine_lock = os.open(self.file.settings.source, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(self._machine_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._unlock()
                    return False
        return True

    def _unlock(self) -> None:
        if self._machine_lock is not None:
            os.close(self._machine_lock)
            self._machine_lock = None

    def round(self) -> None:
        """Judge health, if it is this process' turn, and send the messages that are due."""
        if time.monotonic() < self._stands_back_until:
            self.client.ping()  # whether Redis answers, each process sees for itself
            return
        is_turn = take_turn(self.client, keys.ALERTS_LOCK, LOOK_MS)
        if not is_turn or not self._may_judge(standing := read_newest(self.client, self.file)):
            return
        lock = Lock(self.client, keys.ALERTS, CLAIM_MS, OPEN)
        fresh_until, taken = _boot_seconds() + FRESH_SECONDS, lock.take()
        if not taken.epoch:
            return
        table = AlertTable.read(self.settings, taken.field, self.client)
        if taken.at_ms - standing.now_ms < STALE_MS:
            severities = {ILL, self.settings.severity}
            problems = (one for one in problems_of(standing) if one.severity in severities)
            table.observe((one for one in problems if one.name != UNHEARD), standing.now_ms)
        while _boot_seconds() < fresh_until and table.tell_next(self._post, taken.at_ms):
            fresh_until = _boot_seconds() + FRESH_SECONDS
            if self._is_ended.is_set() or lock.save(taken.epoch, table.fields()) is None:
                break
        lock.save(taken.epoch, table.fields(), ends=True)

    def _may_judge(self, standing: Standing) -> bool:
        """Say whether this process may name problems by what it knows."""
        if standing.started and not standing.is_newest:
            # Those who have the newest configuration judge; the look was theirs.
            self._stands_back_until = time.monotonic() + STAND_BACK_SECONDS
            return False
        if WORKER in standing.seen:
            self._worker_seen_at = time.monotonic()
        # A Redis that came back empty knows no worker, until they have found it and noticed that.
        return bool(
            WORKER in standing.seen
            or standing.redis.losses
            or time.monotonic() - self._worker_seen_at >= FOUND_AGAIN_MS / 1_000
        )

    def _post(self, kind: AlertKind, one: OpenProblem) -> PostResult:
        return post(kind, one, self.settings, self.file.settings.operate.docs_url)


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_announcer(settings: Settings, *, only_watches: bool = False) -> Announcer | None:
    """Start a thread that announces problems, where `[operate.notify]` says to whom.

    Args:
        settings: The settings with which the process was started.
        only_watches: True if the process does not work by its configuration, so that it may take a
            newer one.

    The thread ends with its process, which lets it finish the message that it is sending.
    """
    notify = settings.operate.notify
    if notify is None:
        return None
    if not notify.url.is_set:
        message = f"Nothing is announced here: operate.notify.url is not set ({notify.url.origin})."
        LOG.warning("alerts.off", message=message)
        return None
    client = connect(resolve_url(settings.redis), timeout_seconds=2.0)
    file = WatchedFile(settings, may_change=only_watches)
    announcer = Announcer(client, file, notify, AlertTable(notify, least_ms=OUTAGE_MS))
    threading.Thread(target=announcer.run, name="announcer", daemon=True).start()
    atexit.register(announcer.end)
    return announcer


def body_of(
    kind: AlertKind, one: OpenProblem, settings: NotifySettings, docs_url: str = ""
) -> dict[str, Any]:
    """Return the JSON body of a message in the configured format.

    Args:
        kind: The kind of message.
        one: The problem that the message is about.
        settings: The settings of messages, `[operate.notify]`.
        docs_url: The address of docs/operating.md, or of a copy; "" = no message has a link.
    """
    problem = one.problem
    is_over, lasted = kind == "problem_over", in_short((one.seen_ms - one.since_ms) / 1_000)
    still = "still " if kind == "problem_lasts" else ""
    name = f" ({settings.name})" if settings.name else ""
    title = printable(
        f"segrelay{name}: {still}{'over' if is_over else problem.severity}: {problem.title}"
    )
    if is_over:
        text = printable(f"It lasted {lasted}. It was: {problem.message}")
    else:
        lasts = f"It has lasted {lasted}. " if still else ""
        end = "" if problem.message.endswith("?") else "."
        text = printable(lasts + problem.message + end)
        text += "".join(f"\nDo: {printable(command)}" for command in problem.commands)
    link = f"{docs_url}#{problem.name}" if docs_url and not is_over else None
    text += f"\nMore: {link}" if link else ""
    if settings.format == "slack":
        title, text = (part.translate(_SLACK_ESCAPES) for part in (title, text))
        return {"text": f"*{title}*\n{text}"}
    if settings.format == "teams":
        return _card(title, text)
    at = datetime.fromtimestamp(one.seen_ms / 1_000, UTC).isoformat(timespec="seconds")
    return {
        "installation": settings.name,
        "event": kind,
        "at": at,
        "problem": problem.document(),
        "link": link,
        "text": f"{title}\n{text}",
    }


def _card(title: str, text: str) -> dict[str, Any]:
    """Return an adaptive card, which the workflows of Teams post."""
    blocks: list[dict[str, Any]] = [
        {"type": "TextBlock", "text": title, "weight": "bolder", "wrap": True},
        *({"type": "TextBlock", "text": line, "wrap": True} for line in text.splitlines()),
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}
