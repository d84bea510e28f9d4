"""Calls functions, `questions`, in a copy of this process, since any of them may end it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

ANSWER_SECONDS: Final = 10
"""The processor seconds for one question."""
MEMORY_BYTES: Final = 2_000_000_000
"""The memory limit of the copy, in bytes."""


def answers_apart(
    questions: Sequence[Callable[[], Any]], *, seconds: float = ANSWER_SECONDS
) -> list[Any]:
    """Call each question, a function, in a fork of this process, and return the answers.

    Args:
        questions: Their answers are written as JSON.
        seconds: Processor time for each.

    Returns:
        The answers; None for one that ended the process that was asked, or raised.
    """
    answers: list[Any] = []
    while len(answers) < len(questions):
        answers += _forked(questions[len(answers) :], seconds)
        if len(answers) < len(questions):
            answers.append(None)
    return answers


def _forked(questions: Sequence[Callable[[], Any]], seconds: float) -> list[Any]:
    """Return the answers up to the first question that is not answered."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            _answer(questions, writing, seconds)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        answers = [orjson.loads(line) for line in lines if line.endswith(b"\n")]
    os.waitpid(child, 0)
    return answers


def _answer(questions: Sequence[Callable[[], Any]], writing: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with os.fdopen(writing, "wb", buffering=0) as answers:
        for ask in questions:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            answers.write(orjson.dumps(ask()) + b"\n")
