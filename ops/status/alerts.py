"""Judges health again and again beside a long-running process, and sends the messages.

The processes agree in Redis about who sends a message, which they can't do while Redis can't be
reached. So each machine announces for itself that it does not reach Redis, and names itself in the
message. Of its processes, the one that holds a lock on the configuration file does it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from segrelay.ops.embedded.lifecycle import why_full
from segrelay.ops.status.alert_store import (
    BEGIN,
    CALM_SECONDS,
    END,
    IN_DOUBT,
    LASTS_SECONDS,
    LONGEST_LASTS_SECONDS,
    MOST_TRIES,
    NOT_SENT,
    QUIET_SECONDS,
    REMINDER,
    SENT,
    Alert,
    AlertFate,
    AlertKind,
    AlertStore,
    wait_seconds,
)
from segrelay.ops.status.health import FOUND_AGAIN_MS, UNREACHABLE, problems_of
from segrelay.ops.status.problems import ILL, HealthProblem, in_short
from segrelay.ops.status.standing import Standing, WatchedFile, read_newest
from segrelay.worker.contract.connections import why_no_answer
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import NotifySettings, Settings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import RedisUnavailable, SegrelayError
from segrelay.worker.logs import log_bug

LEAST_SECONDS: Final = 5.0
"""Seconds of the shortest outage of Redis that is announced; a restart is over sooner."""


@dataclass(slots=True)
class MachineLock:
    """A lock that one process of a machine holds, and that ends with the process.

    Args:
        path: A file that all of them can read, and that has to be there anyway.
    """

    path: Path
    _file: int | None = None

    def take(self) -> bool:
        """Take the lock; return whether this process holds it, or can't know if another does."""
        if self._file is not None:
            return True
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            return not isinstance(error, BlockingIOError)
        self._file = file
        return True

    def give_back(self) -> None:
        """Release the lock for another process of the machine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@dataclass(slots=True)
class OutageAnnouncer:
    """Announces that Redis can't be reached from this machine, and that it can again.

    An outage within ten minutes after another one comes and goes: its end is announced after ten
    minutes without one, and the lock is kept until then, so that one process does all of it. One
    that lasts is told again, as `alerts_observe.lua` does it for all other problems.

    Args:
        take, give_back: Of the machine's lock.
        after_seconds: An outage that is over sooner is not announced.
        now_seconds: A clock that is never set.
        remind_after_seconds: 0 = never.
    """

    send: Callable[[Alert, int], AlertFate]
    take: Callable[[], bool]
    give_back: Callable[[], None]
    after_seconds: float
    now_seconds: Callable[[], float]
    now_ms: Callable[[], int]
    remind_after_seconds: float = 0.0
    _down_at: float | None = None
    _up_at: float | None = None
    _ended_at: float | None = None
    _told: Alert | None = None
    _told_at: float = 0.0
    _back_at: float | None = None
    _again: int = 0
    _first_ms: int = 0
    _unsent: list[Alert] = field(default_factory=list)
    _tries: int = 0
    _is_in_doubt: bool = False
    _next_at: float = 0.0

    def observe(self, failure: str) -> None:
        """Record why Redis can't be reached now ("" = it can), and send the oldest message."""
        now = self.now_seconds()
        if failure:
            self._is_down(failure, now)
        else:
            self._is_up(now)
        self._send_oldest(now)

    def _is_down(self, failure: str, now: float) -> None:
        self._up_at = None
        if self._down_at is None:
            self._down_at = now
            self._back_at = now if self._told else None
            self._first_ms = self._told.first_ms if self._told else self.now_ms()
        if self._told:
            self._tell_again(self._told, failure, now)
        elif now - self._down_at >= self.after_seconds and self.take():
            is_restless = self._ended_at is not None and now - self._ended_at < QUIET_SECONDS
            self._again = 0
            self._tell(self._alert(BEGIN, failure, is_restless=is_restless), now)

    def _tell_again(self, told: Alert, failure: str, now: float) -> None:
        """Tell of an outage that came back and lasts, or that lasts for very long."""
        lasts_seconds = min(LONGEST_LASTS_SECONDS, LASTS_SECONDS * 2.0**self._again)
        if self._back_at is not None:
            if now - self._back_at >= lasts_seconds:
                self._back_at, self._again = None, self._again + 1
                self._tell(self._alert(BEGIN, failure, is_restless=True), now)
        elif self.remind_after_seconds and now - self._told_at >= self.remind_after_seconds:
            self._tell(self._alert(REMINDER, failure, is_restless=told.is_restless), now)

    def _tell(self, alert: Alert, now: float) -> None:
        self._told, self._told_at = alert, now
        self._unsent.append(alert)

    def _is_up(self, now: float) -> None:
        self._down_at = None
        self._up_at = now if self._up_at is None else self._up_at
        told = self._told
        calm_seconds = QUIET_SECONDS if told and told.is_restless else CALM_SECONDS
        if told and now - self._up_at >= calm_seconds:
            self._unsent.append(
                Alert(
                    END,
                    at_ms=self.now_ms(),
                    first_ms=told.first_ms,
                    is_restless=told.is_restless,
                    problem=told.problem,
                )
            )
            self._told, self._ended_at = None, now
        if not told and not self._unsent and now - (self._ended_at or 0.0) >= QUIET_SECONDS:
            self.give_back()

    def _alert(self, kind: AlertKind, failure: str, *, is_restless: bool) -> Alert:
        machine = socket.gethostname()
        told = f"this machine has no connection to Redis, so it sends and stores nothing: {failure}"
        problem = HealthProblem(
            UNREACHABLE, ILL, machine, told, "segrelay redis status", self._first_ms
        )
        return Alert(
            kind,
            at_ms=self.now_ms(),
            first_ms=self._first_ms,
            is_restless=is_restless,
            problem=problem,
        )

    def _send_oldest(self, now: float) -> None:
        if not self._unsent or now < self._next_at:
            return
        self._tries += 1
        fate = self.send(self._unsent[0], self._tries)
        is_over = fate == SENT or self._tries >= MOST_TRIES or self._is_in_doubt
        if is_over:
            self._unsent.pop(0)
            self._tries, self._next_at, self._is_in_doubt = 0, 0.0, False
        else:
            self._next_at = now + wait_seconds(self._tries)
            self._is_in_doubt = fate == IN_DOUBT


ROUND_SECONDS: Final = 1.0
STAND_BACK_SECONDS: Final = 10.0
"""Seconds for which a process with an older configuration leaves it to the others to judge."""
POST_SECONDS: Final = 5.0
"""Seconds for the answer; with the time to connect, less than a message is claimed for."""
CONNECT_SECONDS: Final = 3.0
REDIS_SECONDS: Final = 2.0
LOG: Final = structlog.get_logger()
_NOTHING_WAS_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL)


@dataclass(frozen=True, slots=True)
class PostResult:
    """The result of posting a message; without a failure it was taken."""

    failure: str = ""
    is_in_doubt: bool = False

    @property
    def fate(self) -> AlertFate:
        """Return the fate of the message that `AlertStore` records."""
        if not self.failure:
            return SENT
        return IN_DOUBT if self.is_in_doubt else NOT_SENT


def post(alert: Alert, settings: NotifySettings, docs_url: str = "") -> PostResult:
    """Post a message. The failure never names the URL.

    Only the status of the answer is read: a body that trickles in holds nothing up.
    """
    try:
        with httpx.stream(
            "POST",
            settings.url.reveal(),
            json=body_of(alert, settings, docs_url),
            timeout=httpx.Timeout(POST_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
        ) as answer:
            if answer.is_redirect:
                said = f"it sends us elsewhere, which is not followed: {answer.status_code}"
                return PostResult(said)
            return PostResult("" if answer.is_success else f"it answered {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        is_in_doubt = not isinstance(error, _NOTHING_WAS_SENT)
        return PostResult(f"it does not answer ({why_no_answer(error)})", is_in_doubt)


def send(alert: Alert, settings: NotifySettings, docs_url: str, *, tries: int) -> PostResult:
    """Post a message, and log and return what became of it."""
    result = post(alert, settings, docs_url)
    failure = result.failure
    problem = alert.problem.name
    if failure and tries < MOST_TRIES:
        LOG.warning("alert.failed", problem=problem, reason=failure, tries=tries)
    elif failure:
        LOG.error(
            "alert.dropped",
            problem=problem,
            message=f"The address of operate.notify.url took no message: {failure}.",
        )
    else:
        LOG.info("alert.sent", problem=problem, over=alert.is_over)
    return result


@dataclass(slots=True)
class Announcer:
    """Judges health and sends messages, round after round, in a thread of its own.

    Args:
        client: Of its own, with short timeouts.
        why_down: Returns what ended a Redis that runs on this machine; "" = not known.
    """

    client: Redis
    file: WatchedFile
    store: AlertStore
    outage: OutageAnnouncer
    why_down: Callable[[], str] = str
    _is_ended: threading.Event = field(default_factory=threading.Event)
    _worker_seen_at: float = float("-inf")
    _stands_back_until: float = 0.0
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Run rounds until told to end; no failure ends them."""
        while not self._is_ended.wait(ROUND_SECONDS):
            try:
                self.outage.observe(self._failure_of_round())
            except Exception as error:  # noqa: BLE001 - the edge of the thread
                log_bug(error, "alerts.failed")

    def end(self) -> None:
        """Tell the thread to end, and let it finish the message that it is sending.

        Else the message would be claimed by a process that is gone, and come late.
        """
        self._is_ended.set()
        if self._sending.acquire(timeout=POST_SECONDS + CONNECT_SECONDS):
            self._sending.release()

    def _failure_of_round(self) -> str:
        """Run a round, and return the reason if Redis can't be reached; "" = it can."""
        try:
            self.round()
        except RedisUnavailable as error:
            return self.why_down() or error.message
        except SegrelayError as error:
            LOG.debug("alerts.wait", message=error.message)
        return ""

    def round(self) -> None:
        """Judge health, if it is this process' turn, and send the messages that are due."""
        if time.monotonic() >= self._stands_back_until and self.store.may_look():
            standing = read_newest(self.client, self.file)
            if self._may_judge(standing):
                self.store.observe(problems_of(standing), standing.now_ms)
        while self._send_one():
            pass

    def _may_judge(self, standing: Standing) -> bool:
        """Say whether this process may name problems by what it knows."""
        if standing.started and not standing.is_newest:
            # Those who have the newest configuration judge; the look was theirs.
            self._stands_back_until = time.monotonic() + STAND_BACK_SECONDS
            return False
        if standing.worker_seen_ms:
            self._worker_seen_at = time.monotonic()
        # A Redis that came back empty knows no worker, until they have found it and noticed that.
        return bool(
            standing.worker_seen_ms
            or standing.redis.losses
            or time.monotonic() - self._worker_seen_at >= FOUND_AGAIN_MS / 1_000
        )

    def _send_one(self) -> bool:
        """Send the oldest message, and return whether there may be another one."""
        with self._sending:
            if self._is_ended.is_set():
                return False
            taken = self.store.take()
            if taken is None or not taken.may_be_sent():
                return False
            docs_url = self.file.settings.operate.docs_url
            result = send(taken.alert, self.store.settings, docs_url, tries=taken.tries)
            self.store.conclude(taken, result.fate, result.failure)
            return result.fate == SENT


def start_announcer(settings: Settings, *, only_watches: bool = False) -> Announcer | None:
    """Start a thread that announces problems, where `[operate.notify]` says to whom.

    Args:
        settings: The settings with which the process was started.
        only_watches: The process does not work by its configuration, so it may take a newer one.

    The thread ends with its process, which lets it finish the message that it is sending.
    """
    notify, docs_url = settings.operate.notify, settings.operate.docs_url
    if notify is None:
        return None
    if not notify.url.is_set:
        message = f"Nothing is announced here: operate.notify.url is not set ({notify.url.origin})."
        LOG.warning("alerts.off", message=message)
        return None
    client = connect(resolve_url(settings.redis), timeout_seconds=REDIS_SECONDS)
    lock = MachineLock(settings.source)
    outage = OutageAnnouncer(
        lambda alert, tries: send(alert, notify, docs_url, tries=tries).fate,
        lock.take,
        lock.give_back,
        max(LEAST_SECONDS, notify.after_seconds),
        now_seconds=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        now_ms=lambda: round(time.time() * 1_000),
        remind_after_seconds=notify.remind_after_seconds,
    )
    file = WatchedFile(settings, may_change=only_watches)
    is_here = settings.redis.url == EMBEDDED
    why_down = partial(why_full, settings.redis.data_dir) if is_here else str
    announcer = Announcer(client, file, AlertStore(client, notify), outage, why_down)
    threading.Thread(target=announcer.run, name="announcer", daemon=True).start()
    atexit.register(announcer.end)
    return announcer


TEST: Final = Alert(
    BEGIN,
    at_ms=0,
    first_ms=0,
    is_restless=False,
    problem=HealthProblem(
        "test",
        ILL,
        "",
        "this is a test: messages about problems arrive here",
        "segrelay status",
    ),
)
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


_EVENTS: Final[Mapping[AlertKind, str]] = {REMINDER: "problem_lasts", END: "problem_over"}


def body_of(alert: Alert, settings: NotifySettings, docs_url: str = "") -> dict[str, Any]:
    """Return the JSON body of a message in the configured format.

    Args:
        alert: The message.
        settings: Of messages.
        docs_url: The address of docs/operating.md, or of a copy; "" = no message has a link.
    """
    title, text = _title(alert, settings), _text(alert)
    link = f"{docs_url}#{alert.problem.name}" if docs_url and not alert.is_over else ""
    if link:
        text += f"\nMore: {link}"
    match settings.format:
        case "slack":
            title, text = (part.translate(_SLACK_ESCAPES) for part in (title, text))
            return {"text": f"*{title}*\n{text}"}
        case "teams":
            return _card(title, text)
        case "json":
            return {
                "installation": settings.name,
                "event": _EVENTS.get(alert.kind, "problem"),
                "at": _moment(alert.at_ms),
                "comes_and_goes": alert.is_restless,
                "problem": alert.problem.document(),
                "link": link or None,
                "text": f"{title}\n{text}",
            }


def _title(alert: Alert, settings: NotifySettings) -> str:
    problem = alert.problem
    installation = f" ({settings.name})" if settings.name else ""
    state: str = "over" if alert.is_over else problem.severity
    if alert.kind == REMINDER:
        state = f"still {state}"
    return printable(f"segrelay{installation}: {state}: {problem.title}")


def _text(alert: Alert) -> str:
    problem = alert.problem
    lasted = in_short((alert.at_ms - alert.first_ms) / 1_000)
    if alert.is_over:
        how = f"It came and went for {lasted}" if alert.is_restless else f"It lasted {lasted}"
        return printable(f"{how}. It was: {problem.message}")
    lasts = f"It has lasted {lasted}. " if alert.kind == REMINDER else ""
    restless = " It comes and goes: its end is told after 10 minutes without it."
    end = "" if problem.message.endswith("?") else "."
    return (
        printable(f"{lasts}{problem.message}{end}{restless if alert.is_restless else ''}")
        + f"\nDo: {printable(problem.command)}"
    )


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


def _moment(ms: int) -> str | None:
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds")
