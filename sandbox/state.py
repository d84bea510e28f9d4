"""The state of the sandbox in memory: the account, its faults, its journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import orjson
from pydantic import ValidationError

from segrelay.sandbox.catch_all import CatchAll
from segrelay.sandbox.exchange import Exchange, Reply, error, json_answer
from segrelay.sandbox.insider.api import Insider
from segrelay.sandbox.insider.faults import Faults
from segrelay.sandbox.insider.journal import Journal, RepeatedFate
from segrelay.sandbox.lytics.api import CONTROL_PREFIX, Lytics
from segrelay.sandbox.settings import AUDIENCE_ATTRIBUTE, SandboxSettings, described


class SandboxState:
    """The account with its faults and its journal, from which all reports are made."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.faults = Faults(settings)
        self.lytics = Lytics(settings.lytics)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the settings; the random draws go on."""
        self.insider = Insider(self.settings)
        self.lytics.stop()
        self.lytics = Lytics(self.settings.lytics)
        self.catch_all = CatchAll()
        self.journal = Journal(track_events=self.settings.track_events)

    def change(self, changes: dict[str, Any]) -> None:
        """Replace some settings; raises pydantic's ValidationError."""
        self.settings = self.settings.changed(changes)
        self.insider.configure(self.settings)
        self.faults.configure(self.settings)
        self.lytics.configure(self.settings.lytics)

    def summary(self) -> dict[str, Any]:
        """Return the counts of requests, users, profiles, events and faults."""
        insider, journal = self.insider, self.journal
        return {
            "requests": {
                **journal.totals(),
                "in_flight": journal.in_flight,
                "skip_hook": insider.tally.skip_hook_requests,
            },
            "users": insider.tally.of_users(),
            "limit": {
                "per_minute": self.settings.limit_per_minute,
                "limited": insider.limited,
                "highest_received": insider.received.highest,
                "highest_admitted": insider.admitted.highest,
            },
            "profiles": {
                "total": len(insider.profiles),
                "merged": insider.profiles.merged,
                "erased": insider.profiles.erased,
            },
            "events": self.events(),
            "drops": {" ".join(what): n for what, n in insider.drops.most_common()},
            "overlaps": self._overlap_counts(),
            "repeats": self.repeats(),
            "endpoints": self.catch_all.shown(0),
        }

    def requests(self, last: int) -> dict[str, Any]:
        """Return counts by status and path, the counts of each second, and the last requests."""
        journal = self.journal
        kept = list(journal.requests)
        return {
            **journal.totals(),
            "timeline": [
                {"second": second, "by_status": dict(statuses)}
                for second, statuses in sorted(journal.timeline.items())
            ],
            "last": kept[-last:] if last > 0 else [],
        }

    def repeats(self) -> dict[str, Any]:
        """Return the counts of repeated bodies and users, by path and by their earlier fate."""
        journal = self.journal
        return {
            "bodies": {path: found.shown() for path, found in journal.bodies.items()},
            "users": {path: found.shown() for path, found in journal.entries.items()},
            "requests_with_a_user_again": {
                path: {
                    f"again_after_{f.name.lower()}": journal.requests_again[path, f]
                    for f in RepeatedFate
                }
                for path in journal.bodies
            },
            "users_again": sum(found.counts.total() for found in journal.entries.values()),
            "events": journal.events.shown(),
            "users_with_several_events": journal.users_with_several_events,
        }

    def overlaps(self) -> dict[str, Any]:
        """Return pairs of requests that were in flight at the same time for one profile."""
        found = [asdict(overlap) for overlap in self.journal.overlaps]
        return {**self._overlap_counts(), "last": found}

    def profiles(self, limit: int, offset: int) -> list[dict[str, Any]]:
        """Return profiles, the oldest first; a limit of 0 means all."""
        found = sorted(self.insider.profiles, key=lambda profile: profile.serial)
        return [profile.shown() for profile in found[offset : offset + limit if limit else None]]

    def events(self) -> dict[str, Any]:
        """Return counts of the event log."""
        profiles = self.insider.profiles
        return {
            "total": profiles.events_written.total(),
            "by_name": dict(profiles.events_written),
            "doubled": profiles.events_doubled,
            "journeys_started": self.insider.tally.journeys_started,
        }

    def _overlap_counts(self) -> dict[str, int]:
        journal = self.journal
        counts = {name: journal.overlap_counts[name] for name in ("total", "different", "equal")}
        return {
            **counts,
            "late": journal.overlap_counts["late"],
            "profiles_twice_in_a_request": journal.profiles_twice_in_a_request,
        }


PREFIX: Final = "/_sandbox/"
_LAST_REQUESTS: Final = "100"


def inspect(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    """Answer one request below `/_sandbox/`."""
    name = exchange.path.removeprefix(PREFIX)
    if name.startswith(CONTROL_PREFIX):
        return _lytics(state, exchange, body)
    routes = _CHANGES if exchange.method == "POST" else _REPORTS
    route = routes.get(name)
    if route is None:
        reports, changes = ", ".join(_REPORTS), ", ".join(_CHANGES)
        return error(404, f"nothing here: {name!r}; GET {reports}; POST {changes}")
    try:
        return route(state, exchange, body)
    except ValidationError as problems:
        return error(400, described(problems))
    except ValueError as problem:
        return error(400, str(problem))


def _lytics(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    name = exchange.path.removeprefix(PREFIX + CONTROL_PREFIX)
    try:
        return state.lytics.control(exchange.method, name, exchange.queries, body)
    except (KeyError, TypeError, ValueError) as problem:
        return error(400, f"{type(problem).__name__}: {problem}")


def _profiles(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    if exchange.query("email"):
        return _profile(state, exchange, _body)
    limit, offset = int(exchange.query("limit", "0")), int(exchange.query("offset", "0"))
    return json_answer(200, state.profiles(limit, offset))


def _profile(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    key = exchange.query("key") or "email:" + exchange.query("email").lower()
    profile = state.insider.profiles.find((key,))
    if profile is None:
        return error(404, "no such profile")
    return json_answer(200, profile.shown())


def _requests(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    return json_answer(200, state.requests(int(exchange.query("last", _LAST_REQUESTS))))


def _endpoints(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    last = int(exchange.query("last", _LAST_REQUESTS))
    return json_answer(200, state.catch_all.shown(last, exchange.query("endpoint")))


def _memberships(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    attribute = exchange.query("attribute", AUDIENCE_ATTRIBUTE)
    return json_answer(200, state.insider.profiles.lists(attribute))


def _settings(state: SandboxState, _exchange: Exchange, _body: bytes) -> Reply:
    return json_answer(200, state.settings.model_dump(mode="json"))


def _change(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    changes = orjson.loads(body or b"{}")
    if not isinstance(changes, dict):
        return error(400, "an object of settings is needed")
    state.change(changes)
    return _settings(state, exchange, body)


def _reset(state: SandboxState, _exchange: Exchange, _body: bytes) -> Reply:
    state.reset()
    return json_answer(200, {"ok": True})


def _report(
    make: Callable[[SandboxState], Any],
) -> Callable[[SandboxState, Exchange, bytes], Reply]:
    return lambda state, _exchange, _body: json_answer(200, make(state))


_REPORTS: Final[dict[str, Callable[[SandboxState, Exchange, bytes], Reply]]] = {
    "health": _report(lambda _state: {"ok": True}),
    "summary": _report(SandboxState.summary),
    "profiles": _profiles,
    "profile": _profile,
    "memberships": _memberships,
    "requests": _requests,
    "endpoints": _endpoints,
    "overlaps": _report(SandboxState.overlaps),
    "repeats": _report(SandboxState.repeats),
    "settings": _settings,
}
_CHANGES: Final[dict[str, Callable[[SandboxState, Exchange, bytes], Reply]]] = {
    "settings": _change,
    "reset": _reset,
}
