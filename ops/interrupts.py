"""Being interrupted once: what was started must end, however often Ctrl-C is pressed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Unwind at the first Ctrl-C or SIGTERM, and let no other disturb what ends things.

    Only in the main thread.
    """
    before = {number: signal.signal(number, _unwind) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unwind(number: int, _frame: Any) -> NoReturn:
    for each in _NUMBERS:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
