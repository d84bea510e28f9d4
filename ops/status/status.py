"""The document of `segrelay status`: the counts of all partitions, added up.

`accepted = delivered + skipped + dead + discarded + waiting` holds in each partition at every
moment, so it holds in the sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from redis import Redis

from segrelay.jsonnet.accelerated import COMPILED
from segrelay.ops.state.identity_changes import destinations_with_stable_ids, read_renamed_people
from segrelay.ops.state.partitions import (
    PartitionSnapshot,
    all_partitions,
    ask_each,
    destinations_of,
    partitions_document,
    snapshots,
)
from segrelay.ops.state.waiting import (
    Delays,
    mending_commands,
    read_delays,
    reason_of_state,
    state_of,
    state_of_delayed,
)
from segrelay.ops.status.totals import KINDS, OF_REQUESTS, REASONED, Totals, add_up
from segrelay.producer.backfill.jobs import Job, JobStore
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.adapters.redis.gate import read_state
from segrelay.worker.adapters.redis.shared_keys import former_names, read_renamed, read_scopes
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.processes import Process, read_processes
from segrelay.worker.contract.receivers import too_large
from segrelay.worker.contract.settings import Destination, Settings, Trigger
from segrelay.worker.contract.triggers import (
    UNMADE,
    Pause,
    Pauses,
    TemplateVersion,
    read_pauses,
    read_versions,
)
from segrelay.worker.core.gate import gate_id

_STOPPED: Final = "its template or a secret was wrong when a worker started: segrelay config check"


def read_status(
    client: Redis, settings: Settings, places: Sequence[PartitionKeys] = ()
) -> dict[str, Any]:
    """Return the document of `segrelay status`; `places` are all partitions, if they are known."""
    places = places or all_partitions(client, settings)
    found = snapshots(client, places)
    scopes = read_scopes(client, settings) if any(one.waiting for one in found) else {}
    totals = add_up(found, settings, scopes)
    pauses, processes = read_pauses(client), read_processes(client)
    states = _delayed(found, read_delays(client, places))
    triggers = _triggers(totals, settings, pauses, _stopped(processes, settings), states)
    people = read_renamed_people(client, places, destinations_with_stable_ids(settings))
    return {
        **totals.of_all(),
        **{f"{kind}_by_reason": _sorted(totals.by_reason(kind)) for kind in REASONED},
        "triggers": _with_versions(settings, triggers, read_versions(client), processes),
        "jobs": _jobs(client, totals, pauses),
        "destinations": _destinations(client, settings, totals, pauses, destinations_of(places)),
        **_waiting(totals),
        "former_names": former_names(client, settings),
        "partitions": partitions_document(settings.redis.numbering),
        "orphans_mended_by": mending_commands(client, settings, found, scopes)
        if totals.orphans
        else {},
        "quarantined": Quarantine(client).totals().records,
        "too_large_requests": too_large(client),
        **{name: totals.sum_of(name) for name in OF_REQUESTS},
        "dropped_fields": _sorted(totals.dropped_fields),
        "responses": _responses(client, places),
        "template_files": _differing_files(processes, settings),
        "renamed_people": {name: asdict(one) for name, one in people.items()},
        "processes": [_process(one, settings) for one in processes],
    }


def _waiting(totals: Totals) -> dict[str, Any]:
    """Return the part of the document about waiting deliveries."""
    oldest = None if totals.oldest_ms is None else (totals.now_ms - totals.oldest_ms) / 1000
    return {
        "lanes": totals.of_lanes(),
        "oldest_waiting_seconds": None if oldest is None else max(0.0, oldest),
        "open_notes": totals.intents_in_doubt,
        "orphaned": totals.orphans.total(),
        "orphans": _sorted(totals.orphans),
    }


def _responses(client: Redis, places: Sequence[PartitionKeys]) -> dict[str, int]:
    """Return the numbers of records that wait for response streams, and that were dropped."""
    answers = ask_each(
        client,
        places,
        lambda pipe, place: pipe.xlen(place.responses),
        lambda pipe, place: pipe.get(place.responseslost),
    )
    return {"waiting": sum(answers[::2]), "lost": sum(int(lost or 0) for lost in answers[1::2])}


def _process(process: Process, settings: Settings) -> dict[str, Any]:
    return {
        "host": process.host,
        "pid": process.pid,
        "kind": process.kind,
        "version": process.version,
        "config": process.config,
        "current": process.config == settings.fingerprint,
        "doubted": dict(process.doubted),
        "clock_ahead_seconds": process.clock_ahead_seconds,
        "refused": dict(process.refused),
        "refused_messages": process.refused_messages,
    }


def _stopped(processes: Iterable[Process], settings: Settings) -> frozenset[str]:
    """Return the triggers that a worker with this configuration can't work on."""
    return frozenset(
        name
        for process in processes
        if process.config == settings.fingerprint
        for name in process.stopped
    )


def _six(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind: counts.get(kind, 0) for kind in KINDS}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return {name: count for name, count in ordered if count}


def _triggers(
    totals: Totals,
    settings: Settings,
    pauses: Pauses,
    stopped: frozenset[str],
    delayed: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    names = sorted({*settings.triggers, *totals.by_trigger})
    return {
        name: _numbers(totals, name)
        | {
            "orphaned": totals.orphans[name],
            "destination": one.destination if (one := settings.triggers.get(name)) else "",
            "oldest_live_ms": totals.oldest_live_ms.get(name),
        }
        | (
            _trigger_state(settings, name, pauses.triggers.get(name), is_stopped=name in stopped)
            or delayed.get(name, {"state": "ok", "reason": ""})
        )
        for name in names
    }


def _numbers(totals: Totals, name: str) -> dict[str, Any]:
    counts: Mapping[str, int] = totals.by_trigger.get(name, {})
    return (
        _six(counts)
        | {f"{kind}_by_reason": _sorted(totals.reasons[kind].get(name, {})) for kind in REASONED}
        | {kind: counts.get(kind, 0) for kind in OF_REQUESTS}
        | {"by_lane": totals.lanes_of(name)}
        | {"waits": {lane: asdict(one) for lane, one in totals.waits.get(name, {}).items()}}
    )


def _delayed(found: Sequence[PartitionSnapshot], delays: Sequence[Delays]) -> dict[str, Any]:
    """Return the states of triggers with delayed work."""
    waiting: dict[str, set[int]] = {}
    for at, one in enumerate(found):
        for stream in one.waiting:
            if stream.length:
                waiting.setdefault(stream.trigger, set()).add(at)
    states = {name: state_of_delayed(name, delays, where) for name, where in waiting.items()}
    return {name: state for name, state in states.items() if state}


def _with_versions(
    settings: Settings,
    triggers: dict[str, Any],
    versions: Mapping[str, TemplateVersion],
    processes: Sequence[Process],
) -> dict[str, Any]:
    """Add to each trigger the version of its template, and the workers with another one."""
    for name, row in triggers.items():
        version = versions[name].version if name in versions else ""
        row["version"] = version
        row["other_versions"] = {
            f"{one.host}:{one.pid}": [each for each in one.versions[name] if each != version]
            for one in processes
            if any(each != version for each in one.versions.get(name, ()))
        }
        row["engine_use"] = _engine_use(settings.triggers.get(name), processes)
        row["canary"] = _canary(versions.get(name))
        reasons = [one.refused[name] for one in processes if name in one.refused]
        row["refused"] = reasons[0] if reasons else ""
    return triggers


def _differing_files(processes: Iterable[Process], settings: Settings) -> dict[str, Any]:
    """Return the template files that are not the same at all workers, with who has which."""
    told = [one for one in processes if one.files.digests and one.config == settings.fingerprint]
    found: dict[str, Any] = {}
    for name in sorted({name for one in told for name in one.files.digests}):
        holders: dict[str, list[str]] = {}
        for one in told:
            digest = one.files.digests.get(name, "")
            holders.setdefault(digest, []).append(f"{one.host}:{one.pid}")
        if len(holders) > 1:
            since_ms = max(one.files.since_ms for one in told)
            found[name] = {"workers_by_digest": holders, "since_ms": since_ms}
    return found


def _engine_use(trigger: Trigger | None, processes: Sequence[Process]) -> dict[str, Any]:
    """Return the number of a template's last events that needed the Jsonnet engine, by reason."""
    counts: Counter[str] = Counter()
    template = trigger.template if trigger else ""
    for process in processes:
        counts.update(process.engine_use.get(template, {}))
    events = counts.total()
    compiled = counts.pop(COMPILED, 0)
    return {"events": events, "asked": events - compiled, "by_reason": _sorted(counts)}


def _canary(one: TemplateVersion | None) -> dict[str, Any] | None:
    """Return the state of the canary of a trigger's version; None = it has none."""
    if one is None or not one.canary:
        return None
    return {
        "of": one.canary,
        "left": one.left,
        "outcomes": dict(one.outcomes),
        "before": one.before,
        "outcomes_before": {name: n for name, n in one.did.items() if name not in UNMADE},
    }


def _jobs(client: Redis, totals: Totals, pauses: Pauses) -> dict[str, Any]:
    book = JobStore(client)
    names = sorted({*totals.by_job, *pauses.jobs, *book.names()})
    known = book.found(names)
    return {name: _job(name, known.get(name), totals, pauses.jobs.get(name)) for name in names}


def _job(name: str, job: Job | None, totals: Totals, pause: Pause | None) -> dict[str, Any]:
    counts = _six(totals.by_job.get(name, {}))
    state = state_of(job, waiting=counts["waiting"], pause=pause)
    told: dict[str, Any] = {"state": state, "reason": reason_of_state(name, job, state, pause)}
    told |= {
        "rows": job.tally.rows if job else 0,
        "expected_rows": (job.spec.expected_rows or 0) if job else 0,
    }
    if pause and state == "paused":
        told |= {"since": pause.at, "by": pause.by}
    return counts | told


def _trigger_state(
    settings: Settings, name: str, pause: Pause | None, *, is_stopped: bool
) -> dict[str, str] | None:
    """Return the state of a trigger that is paused or stopped; None = it is neither."""
    if name not in settings.triggers:
        return {"state": "orphaned", "reason": "the configuration does not name it any more"}
    if pause:
        return {"state": "paused", "reason": pause.reason, "since": pause.at, "by": pause.by}
    if is_stopped:
        return {"state": "stopped", "reason": _STOPPED}
    return None


def _destinations(
    client: Redis, settings: Settings, totals: Totals, pauses: Pauses, names: Iterable[str]
) -> dict[str, Any]:
    renamed, paused = read_renamed(client), pauses.destinations
    return {
        name: _destination(client, settings, name, paused.get(name), renamed.get(name, ""))
        | totals.of_destination(name)
        for name in names
    }


def _destination(
    client: Redis, settings: Settings, name: str, pause: Pause | None, new_name: str
) -> dict[str, Any]:
    known = settings.destinations.get(name)
    if known is None and new_name:
        reason = f"its name is {new_name} now"
        return {"state": "renamed", "reason": reason, "rate": 0.0, "factor": 1.0}
    if known is None:
        reason = "the configuration does not name it any more"
        return {"state": "orphaned", "reason": reason, "rate": 0.0, "factor": 1.0}
    found = _gate(client, known)
    if pause:
        return found | {
            "state": "paused",
            "reason": pause.reason or "paused by a person",
            "since": pause.at,
            "by": pause.by,
        }
    return found


def _gate(client: Redis, destination: Destination) -> dict[str, Any]:
    gate = read_state(
        client,
        gate_id(destination.base_url, destination.gate_scope),
        configured_per_minute=destination.rate_per_minute,
    )
    return {
        "state": gate.state,
        "reason": gate.reason,
        "message": gate.message,
        "rate": round(gate.rate_per_minute, 2),
        "factor": gate.factor,
        "since_ms": gate.since_ms,
    }
