"""Names that the shell completes: of triggers, destinations, syncs, audiences, jobs, templates.

They come from the configuration and from a Redis that runs already. Whatever goes wrong, or takes
too long, completes nothing and says nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from segrelay.worker.contract.settings import Settings

_SECONDS: Final = 3.0
"""Seconds that a completion may take: the person waits for the cursor meanwhile."""


Completion = Callable[[str], list[str]]


def _completing(read: Callable[[], Iterable[str]]) -> Completion:
    """Return a function that completes the names that a reader finds."""
    return lambda incomplete: _beginning(incomplete, read)


def _templates() -> Iterable[str]:
    from segrelay.ops.templates.workspace import names_in  # noqa: PLC0415 - only who completes needs it

    return names_in(_settings().templates_folder)


def _audience_names() -> set[str]:
    settings = _settings()
    of_triggers = {name for each in settings.triggers.values() for name in each.audiences}
    return (of_triggers | {each.audience for each in settings.sync.values()}) - {"*"}


def _jobs() -> Iterable[str]:
    from segrelay.ops.state.opened import already_there  # noqa: PLC0415 - see above
    from segrelay.producer.backfill.jobs import JobStore  # noqa: PLC0415 - see above

    with already_there() as (_, client):
        return JobStore(client).names()


def _settings() -> Settings:
    from segrelay.worker.contract.settings import load_settings  # noqa: PLC0415 - see above

    return load_settings()


def _beginning(incomplete: str, read: Callable[[], Iterable[str]]) -> list[str]:
    """Return the names with this beginning; none if they can't be read in time."""
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(sorted(name for name in read() if name.startswith(incomplete)))
        except BaseException:  # noqa: BLE001 - a shell's prompt is no place for errors
            found.clear()

    with _silence():
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        return list(found) if not thread.is_alive() else []


@contextmanager
def _silence() -> Iterator[None]:
    """Discard everything that is written to stderr, by any library."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_triggers = _completing(lambda: _settings().triggers)
_destinations = _completing(lambda: _settings().destinations)
_audiences = _completing(_audience_names)
_template = _completing(_templates)


def _pausable(incomplete: str) -> list[str]:
    return _destinations(incomplete) + _triggers(incomplete)


COMPLETED: Final[Mapping[str, Completion]] = {
    "trigger": _triggers,
    "audience": _audiences,
    "slug": _audiences,
    "destination": _destinations,
    "job": _completing(_jobs),
    "template": _template,
    "pause names": _pausable,
    "resume names": _pausable,
    "sync name": _completing(lambda: _settings().sync),
    "template names": _template,
    "template before": _template,
}
"""Functions by the name of the argument or option that they complete. A key such as `pause names`
holds only for the commands of the section `pause`."""
