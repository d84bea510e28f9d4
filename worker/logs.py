"""The log of a process, with Celery's lines: one line for each event, JSON unless on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog

from segrelay.worker.contract.printable import LAYOUT, printable

FORMAT_VARIABLE: Final = "SEGRELAY_LOG_FORMAT"
"""The environment variable for the format: `json` or `text`; by default, text on terminals only."""
JSON: Final = "json"
TEXT: Final = "text"


_QUIET: Final = ("celery.worker.strategy", "celery.app.trace", "httpx", "httpcore", "uvicorn.error")
"""Loggers that tell of every task, request and start, URLs included; we have our own lines."""

LOG: Final = structlog.get_logger()
_SHARED: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


class _JsonLines(logging.StreamHandler[TextIO]):
    """Writes lines of JSON to a stream, which `log_often` may write to as well."""


def configure(level: int, file: str | None = None) -> None:
    """Send everything that is logged in this process to one place."""
    is_text = _is_text(file)
    stream = logging.StreamHandler if is_text else _JsonLines
    output = logging.FileHandler(file) if file else stream(sys.stderr)
    is_terminal = not file and sys.stderr.isatty()
    output.setFormatter(_formatter(is_text=is_text, is_terminal=is_terminal))
    output.addFilter(_is_worth_reading)
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def log_often(event: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Log lines of which there may be thousands a second: as JSON, in a tenth of the time.

    All are written at once: each write lets another thread go first.
    """
    root = logging.getLogger()
    output = root.handlers[0] if root.handlers else None
    if type(output) is not _JsonLines:
        for named in lines:
            LOG.info(event, **named)
    elif lines and root.isEnabledFor(logging.INFO):
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        common = {"event": event, "level": "info", "timestamp": at}
        texts = [orjson.dumps({**named, **common}) for named in lines]
        output.stream.write(b"\n".join([*texts, b""]).decode())


def _is_text(file: str | None) -> bool:
    chosen = os.environ.get(FORMAT_VARIABLE, "")
    return chosen == TEXT or (chosen != JSON and not file and sys.stderr.isatty())


def log_bug(error: Exception, event: str, **named: Any) -> str:
    """Log where an error of ours was raised, without its text, which may hold profile fields.

    Return a message with the error's type and the function that raised it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    message = f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
    trace = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    LOG.error(event, **named, message=message, trace=trace)
    return f"An error of segrelay: {type(error).__name__} at {frames[-1].name}."


def _formatter(*, is_text: bool, is_terminal: bool) -> logging.Formatter:
    shown: Any = (
        structlog.dev.ConsoleRenderer(colors=is_terminal and not os.environ.get("NO_COLOR"))
        if is_text
        else structlog.processors.JSONRenderer()
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _only_printable,
            shown,
        ],
    )


def _only_printable(_: Any, __: str, event: structlog.typing.EventDict) -> dict[str, Any]:
    """Escape the control characters that a terminal would obey; line breaks of a trace stay."""
    return {
        name: printable(value, keep=LAYOUT) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """Say whether to log a record: not if it is Celery's warning about its next version."""
    return record.name != "py.warnings" or "CPendingDeprecationWarning" not in record.getMessage()
