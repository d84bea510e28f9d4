"""Rules about destinations, triggers and templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from ops.status.health.facts import Facts
from ops.status.health.problem import ATTENTION, ILL, HealthProblem, counted, reason_of
from worker.adapters.redis.addresses import rename_hint

SLOW_FACTOR: Final = 0.5
"""A destination counts as slowed if at most this share of its configured rate is left."""
FILES_WITHIN_MS: Final = 8_000
"""Milliseconds that it may take to copy changed files to all workers."""
_MEND_STOPPED: Final = "segrelay config check, then restart the workers"
_MEND_REFUSED: Final = "correct its template or what the destination knows; segrelay template check"
_CLOSED: Final = frozenset({"paused", "broken", "renamed", "orphaned"})
_HELD: Final = frozenset({"paused", "stopped", "refused", "waits", "orphaned"})


def since_of(one: Mapping[str, Any]) -> int | None:
    """Return the time, in ms, since which a destination or trigger has been in its state."""
    if one.get("since"):
        return int(datetime.fromisoformat(one["since"]).timestamp() * 1_000)
    return int(one["since_ms"]) if one.get("since_ms") else None


def destinations(facts: Facts) -> Iterator[HealthProblem]:
    """Yield destinations that are paused, broken, or slowed."""
    for name, one in facts.status["destinations"].items():
        state, since = one["state"], since_of(one)
        reason = reason_of(one) or "no reason was given"
        if state == "paused":
            mend = f"segrelay resume {name}"
            yield HealthProblem("destination_paused", ILL, name, reason, mend, since)
        elif state == "broken":
            message = (
                f"it answers with errors or not at all: {reason}. segrelay tries again by itself"
                " and loses nothing; if it lasts, look at the destination and at the network"
            )
            yield HealthProblem("destination_broken", ILL, name, message, "segrelay status", since)
        elif state not in _CLOSED and one["factor"] <= SLOW_FACTOR:
            message = (
                f"it answered 429 (too many requests), so segrelay sends {one['factor']:.0%} of the"
                " configured rate and raises that by itself; if it lasts, something else uses the"
                " same key, or `rate` is too high"
            )
            yield HealthProblem("destination_slowed", ATTENTION, name, message, "segrelay status")


def triggers(facts: Facts) -> Iterator[HealthProblem]:
    """Yield triggers that are paused, stopped, or refused."""
    for name, one in facts.status["triggers"].items():
        state, reason = one["state"], reason_of(one) or "no reason was given"
        if state == "paused":
            mend = f"segrelay resume {name}"
            yield HealthProblem("trigger_paused", ILL, name, reason, mend, since_of(one))
        elif state == "stopped":
            yield HealthProblem("trigger_stopped", ILL, name, reason, _MEND_STOPPED)
        elif state in {"refused", "waits"}:
            severity = ILL if one.get("lasting") or _is_late(facts, one) else ATTENTION
            since = one["oldest_live_ms"]
            mend = _MEND_REFUSED if state == "refused" else "segrelay status"
            yield HealthProblem(f"trigger_{state}", severity, name, reason, mend, since)


def templates(facts: Facts) -> Iterator[HealthProblem]:
    """Yield triggers with a refused template change, and templates whose compiled form is off."""
    check = "segrelay template check"
    for name, one in facts.status["triggers"].items():
        if one["refused"]:
            message = f"its file was changed and is not used: {one['refused']}"
            yield HealthProblem("template_refused", ILL, name, message, check)
    for one in facts.status["processes"]:
        for name, count in one["doubted"].items():
            message = (
                f"its compiled form is off in {one['host']}:{one['pid']}: it differed {count:,}"
                " times from Jsonnet, which renders now"
            )
            yield HealthProblem("template_doubted", ATTENTION, name, message, check)


def template_files(facts: Facts) -> Iterator[HealthProblem]:
    """Yield files of templates that are not the same at all workers."""
    for name, one in facts.status["template_files"].items():
        if facts.now_ms - one["since_ms"] < FILES_WITHIN_MS:
            continue
        holders = one["workers_by_digest"].items()
        versions = "; ".join(
            f"{', '.join(workers)} {f'has {digest}' if digest else 'lacks it'}"
            for digest, workers in holders
        )
        yield HealthProblem(
            "template_differs",
            ILL,
            name,
            f"the file differs between workers, so it depends on chance what is sent: {versions}",
            "copy the same templates folder to all workers",
            one["since_ms"],
        )


def orphans(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem for orphaned deliveries, and one for each destination that seems renamed."""
    status = facts.status
    if status["orphaned"]:
        message = (
            f"{status['orphaned']:,} deliveries wait ({counted(status['orphans'])}), but their"
            " trigger is gone, or means something else now"
        )
        commands = dict.fromkeys(status["orphans_mended_by"].values())
        yield HealthProblem("orphaned", ILL, "", message, "; ".join(commands) or "segrelay status")
    for new, old in status["former_names"].items():
        mend = f"segrelay destination rename {old} {new}"
        yield HealthProblem("destination_renamed", ILL, new, rename_hint(old, new), mend)


def live_late(facts: Facts) -> Iterator[HealthProblem]:
    """Yield triggers whose live deliveries wait too long, unless another problem says why."""
    closed = {n for n, one in facts.status["destinations"].items() if one["state"] in _CLOSED}
    for name, one in facts.status["triggers"].items():
        if one["state"] in _HELD or one["destination"] in closed or not _is_late(facts, one):
            continue
        seconds = (facts.now_ms - one["oldest_live_ms"]) / 1_000
        message = (
            f"its oldest live delivery has waited for {seconds:,.0f} s, and at most"
            f" {facts.live_within_seconds:,.0f} s is meant to be (operate.live_within): workers are"
            " too few or hang, or the rate of its destination is used up"
        )
        show = "segrelay status --watch"
        yield HealthProblem("live_late", ILL, name, message, show, one["oldest_live_ms"])


def _is_late(facts: Facts, one: Mapping[str, Any]) -> bool:
    oldest = one["oldest_live_ms"]
    return oldest is not None and facts.now_ms - oldest > facts.live_within_seconds * 1_000
