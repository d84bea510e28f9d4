"""Insider's event log after a run: whether each event that counts is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ops.chaos.renamed_audience import names_of
from ops.invented import Happening, newest_of
from ops.rig import Rig
from producer.events.times import parse_time

_PAGE: Final = 1_000
_EMAIL: Final = "email:"

LoggedEvent = tuple[str, str, str]
"""Email, audience and kind (`enter`, `exit`) of an event."""


def missing_events(rig: Rig, happened: list[Happening]) -> list[Happening]:
    """Return the newest events that the log lacks.

    A state event that told the same later stands for it, and so does an event under the new name of
    a renamed audience. People of whom the sandbox keeps only the last events are passed over.
    """
    newest = newest_of(happened)
    logged, cut_short = _logged(rig, {email for email, _ in newest})
    return [
        event
        for event in newest.values()
        if event.email not in cut_short and not _is_in(logged, event)
    ]


def _is_in(logged: Mapping[LoggedEvent, int], event: Happening) -> bool:
    kind = "exit" if event.is_exit else "enter"
    found = (logged.get((event.email, name, kind), 0) for name in names_of(event.audience))
    return max(found) >= event.time_us


def _logged(rig: Rig, emails: set[str]) -> tuple[dict[LoggedEvent, int], set[str]]:
    """Return the newest time of each kind of event, and of whom the log is cut short."""
    newest: dict[LoggedEvent, int] = {}
    cut_short: set[str] = set()
    for email, profile in _profiles(rig, emails):
        if profile["event_count"] > len(profile["events"]):
            cut_short.add(email)
        for event in profile["events"]:
            told = event["event_params"]["custom"]
            key = (email, told["audience"], told["trigger"])
            newest[key] = max(newest.get(key, 0), parse_time(event["timestamp"]))
    return newest, cut_short


def _profiles(rig: Rig, emails: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    offset = 0
    while found := rig.sandbox.get("profiles", limit=str(_PAGE), offset=str(offset)):
        offset += len(found)
        for profile in found:
            for email in _emails(profile["identifiers"]):
                if email in emails:
                    yield email, profile


def _emails(identifiers: Iterable[str]) -> Iterator[str]:
    return (key.removeprefix(_EMAIL) for key in identifiers if key.startswith(_EMAIL))
