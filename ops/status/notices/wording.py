"""The forms of a message: for Slack, for Teams, and for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from ops.status.notices.book import Notice
from ops.status.wording import in_short
from worker.contract.printable import printable
from worker.contract.settings import NotifySettings

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
    """Return the JSON that is posted."""
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
