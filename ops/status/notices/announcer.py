"""Judges health again and again beside a long-running process, and sends the messages."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog
from redis import Redis

from ops.status.health.facts import read_facts
from ops.status.health.judgement import problems_of
from ops.status.health.problem import in_short
from ops.status.notices.book import (
    IN_DOUBT,
    MOST_TRIES,
    NOT_SENT,
    SENT,
    Notice,
    NoticeBook,
    NoticeFate,
)
from ops.status.notices.outage import LEAST_SECONDS, MachineLock, OutageAnnouncer
from worker.contract.printable import printable
from worker.contract.redis.connection import connect, resolve_url
from worker.contract.settings import NotifySettings, Settings
from worker.errors import RedisUnavailable, SegrelayError
from worker.logs import log_bug

ROUND_SECONDS: Final = 1.0
POST_SECONDS: Final = 5.0
REDIS_SECONDS: Final = 2.0
LOG: Final = structlog.get_logger()
_NOTHING_WAS_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL)


@dataclass(frozen=True, slots=True)
class PostResult:
    """The result of posting a message; without a failure it was taken."""

    failure: str = ""
    is_in_doubt: bool = False

    @property
    def fate(self) -> NoticeFate:
        """Return the fate of the message that `NoticeBook` records."""
        if not self.failure:
            return SENT
        return IN_DOUBT if self.is_in_doubt else NOT_SENT


def post(notice: Notice, settings: NotifySettings) -> PostResult:
    """Post a message. The failure never names the URL.

    Only the status of the answer is read: a body that trickles in holds nothing up.
    """
    try:
        with httpx.stream(
            "POST",
            settings.url.reveal(),
            json=body_of(notice, settings),
            timeout=POST_SECONDS,
            follow_redirects=False,
        ) as answer:
            if answer.is_redirect:
                said = f"it sends us elsewhere, which is not followed: {answer.status_code}"
                return PostResult(said)
            return PostResult("" if answer.is_success else f"it answered {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        is_in_doubt = not isinstance(error, _NOTHING_WAS_SENT)
        return PostResult(f"it does not answer ({type(error).__name__})", is_in_doubt)


def send(notice: Notice, settings: NotifySettings, *, tries: int) -> NoticeFate:
    """Post a message, and log and return what became of it."""
    result = post(notice, settings)
    failure = result.failure
    problem = notice.problem["name"]
    if failure and tries < MOST_TRIES:
        LOG.warning("notice.failed", problem=problem, reason=failure, tries=tries)
    elif failure:
        LOG.error(
            "notice.dropped",
            problem=problem,
            message=f"The address of operate.notify.url took no message: {failure}.",
        )
    else:
        LOG.info("notice.sent", problem=problem, over=notice.is_over)
    return result.fate


@dataclass(slots=True)
class Announcer:
    """Judges health and sends messages, round after round, in a thread of its own.

    Args:
        client: Of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    book: NoticeBook
    outage: OutageAnnouncer
    _is_ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Run rounds until told to end; no failure ends them."""
        while not self._is_ended.wait(ROUND_SECONDS):
            try:
                self.outage.observe(self._failure_of_round())
            except Exception as error:  # noqa: BLE001 - the edge of the thread
                log_bug(error, "notices.failed")

    def end(self) -> None:
        """Tell the thread to end after its round."""
        self._is_ended.set()

    def _failure_of_round(self) -> str:
        """Run a round, and return the reason if Redis can't be reached; "" = it can."""
        try:
            self.round()
        except RedisUnavailable as error:
            return error.message
        except SegrelayError as error:
            LOG.debug("notices.wait", message=error.message)
        return ""

    def round(self) -> None:
        """Judge health, if it is this process' turn, and send the messages that are due."""
        if self.book.may_look():
            facts = read_facts(self.client, self.settings)
            self.book.observe(problems_of(facts), facts.now_ms)
        while self._send_one():
            pass

    def _send_one(self) -> bool:
        """Send the oldest message, and return whether there may be another one."""
        taken = self.book.take()
        if taken is None or not taken.may_be_sent():
            return False
        fate = send(taken.notice, self.book.settings, tries=taken.tries)
        self.book.conclude(taken, fate)
        return fate == SENT


def start_announcer(settings: Settings) -> Announcer | None:
    """Start a thread that announces problems, where `[operate.notify]` says to whom.

    The thread ends with its process.
    """
    notify = settings.operate.notify
    if notify is None:
        return None
    if not notify.url.is_set:
        message = f"Nothing is announced here: operate.notify.url is not set ({notify.url.origin})."
        LOG.warning("notices.off", message=message)
        return None
    client = connect(resolve_url(settings.redis), timeout_seconds=REDIS_SECONDS)
    lock = MachineLock(settings.source)
    outage = OutageAnnouncer(
        lambda notice, tries: send(notice, notify, tries=tries),
        lock.take,
        lock.give_back,
        max(LEAST_SECONDS, notify.after_seconds),
        now_seconds=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        now_ms=lambda: round(time.time() * 1_000),
    )
    announcer = Announcer(client, settings, NoticeBook(client, notify), outage)
    threading.Thread(target=announcer.run, name="announcer", daemon=True).start()
    return announcer


TEST: Final = Notice(
    is_over=False,
    at_ms=0,
    first_ms=0,
    is_restless=False,
    problem={
        "name": "test",
        "severity": "ill",
        "subject": "",
        "since": None,
        "message": "this is a test: messages about problems arrive here",
        "command": "segrelay status",
    },
)
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def body_of(notice: Notice, settings: NotifySettings) -> dict[str, Any]:
    """Return the JSON body of a message in the configured format."""
    match settings.format:
        case "slack":
            title, text = (
                part.translate(_SLACK_ESCAPES) for part in (_title(notice, settings), _text(notice))
            )
            return {"text": f"*{title}*\n{text}"}
        case "teams":
            return _card(_title(notice, settings), _text(notice))
        case "json":
            return _document(notice, settings)


def _document(notice: Notice, settings: NotifySettings) -> dict[str, Any]:
    return {
        "installation": settings.name,
        "event": "problem_over" if notice.is_over else "problem",
        "at": _moment(notice.at_ms),
        "comes_and_goes": notice.is_restless,
        "problem": notice.problem,
        "text": f"{_title(notice, settings)}\n{_text(notice)}",
    }


def _title(notice: Notice, settings: NotifySettings) -> str:
    problem = notice.problem
    subject = f" {problem['subject']}" if problem["subject"] else ""
    installation = f" ({settings.name})" if settings.name else ""
    state = "over" if notice.is_over else problem["severity"]
    return printable(f"segrelay{installation}: {state}: {problem['name']}{subject}")


def _text(notice: Notice) -> str:
    problem = notice.problem
    if notice.is_over:
        lasted = in_short((notice.at_ms - notice.first_ms) / 1_000)
        return printable(f"It lasted {lasted}. It was: {problem['message']}")
    restless = " It comes and goes: its end is told after 10 minutes without it."
    end = "" if problem["message"].endswith("?") else "."
    return (
        printable(f"{problem['message']}{end}{restless if notice.is_restless else ''}")
        + f"\nDo: {printable(problem['command'])}"
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
