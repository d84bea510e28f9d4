"""Insider's event log after a run: whether each event that counts is in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from segrelay.ops.demo.rig import Rig
from segrelay.ops.state.person import LedgerLine
from segrelay.producer.events.values import parse_time
from segrelay.sandbox.people import Happening, newest_of
from tools.chaos.changes.renamed_audience import names_of
from tools.chaos.judging.ledgers import ledgers_of

_PAGE: Final = 1_000
_EMAIL: Final = "email:"


class LoggedEvent(NamedTuple):
    """An event as Insider's log has it."""

    time_us: int
    audience: str
    is_exit: bool


def missing_events(rig: Rig, happened: list[Happening]) -> list[Happening]:
    """Return the newest events of people and audiences that Insider's log lacks.

    An event under the other name of a renamed audience stands for it. People of whom the sandbox
    keeps only the last events are passed over.
    """
    newest = newest_of(happened)
    emails = {email for email, _ in newest}
    ledgers = ledgers_of(rig, sorted(emails))
    logged = _logged(rig, emails)
    return [
        event
        for event in newest.values()
        if (found := logged.get(event.email, ())) is not None
        and not is_told(event, found, ledgers[event.email])
    ]


def is_told(
    event: Happening, logged: Collection[LoggedEvent], ledger: Iterable[LedgerLine]
) -> bool:
    """Say whether a person's log contains the newest event of an audience, or one in its place.

    A state event that told the same later stands for it, if it was delivered. If it was not,
    because Insider had it already, the ledger's time was raised, and the newest event that the log
    has under the same name is an earlier one of the same direction. A renaming leaves an exit under
    the former name, at the time of the entrance under the new one.
    """
    names = names_of(event.audience)
    own = [each for each in logged if each.audience in names]
    if any(each.is_exit == event.is_exit and each.time_us >= event.time_us for each in own):
        return True
    raised = {
        line.audience
        for line in ledger
        if line.raised and line.audience in names and line.delivered_us >= event.time_us
    }
    newest = {each.audience: each for each in sorted(own)}
    return any(newest[name].is_exit == event.is_exit for name in raised & newest.keys())


def _logged(rig: Rig, emails: Collection[str]) -> Mapping[str, list[LoggedEvent] | None]:
    """Return Insider's event log by email; None for people whose log is cut short."""
    found: dict[str, list[LoggedEvent] | None] = {}
    for email, profile in _profiles(rig, emails):
        is_whole = profile["event_count"] == len(profile["events"])
        found[email] = [_read(event) for event in profile["events"]] if is_whole else None
    return found


def _read(event: Mapping[str, Any]) -> LoggedEvent:
    told = event["event_params"]["custom"]
    return LoggedEvent(parse_time(event["timestamp"]), told["audience"], told["trigger"] == "exit")


def _profiles(rig: Rig, emails: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    offset = 0
    while found := rig.sandbox.get("profiles", limit=str(_PAGE), offset=str(offset)):
        offset += len(found)
        for profile in found:
            for email in _emails(profile["identifiers"]):
                if email in emails:
                    yield email, profile


def _emails(identifiers: Iterable[str]) -> Iterator[str]:
    return (key.removeprefix(_EMAIL) for key in identifiers if key.startswith(_EMAIL))
