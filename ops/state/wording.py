"""What in the status wants a person: one sentence each, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.adapters.redis.addresses import rename_hint

OLDEST_SECONDS: Final = 900.0
"""Work that waits for longer wants a look, even if nothing else says why."""

_ILL: Final = frozenset({"paused", "broken", "stopped", "failed", "interrupted"})


def problems_of(document: Mapping[str, Any], *, oldest_seconds: float) -> Iterator[str]:
    """Yield what is wrong; nothing means that all is well.

    Args:
        document: The status.
        oldest_seconds: How long a delivery may wait.
    """
    for kind in ("destination", "trigger", "job"):
        for name, one in document[f"{kind}s"].items():
            if one["state"] in _ILL or one.get("lasting"):
                yield f"{kind} {name} is {one['state']}: {reason_of(one) or 'no reason was given'}"
    if document["orphaned"]:
        commands = dict.fromkeys(document["orphans_mended_by"].values())
        yield (
            f"orphaned {document['orphaned']:,} ({counted(document['orphans'])}): their trigger is"
            f" gone, or means something else now: {', '.join(f'`{one}`' for one in commands)}"
        )
    for new, old in document["former_names"].items():
        yield rename_hint(old, new)
    yield from _about_processes(document)
    oldest = document["oldest_waiting_seconds"]
    if oldest is not None and oldest > oldest_seconds:
        yield f"the oldest delivery has waited for {oldest:,.0f} s"


def _about_processes(document: Mapping[str, Any]) -> Iterator[str]:
    processes = document["processes"]
    if not processes and document["waiting"]:
        yield "no worker has been seen for 10 s: `segrelay up`, or `segrelay worker`"
    older = [f"{one['host']}:{one['pid']}" for one in processes if not one["current"]]
    if older:
        yield f"started with another configuration than this: {', '.join(older)}; restart them"


def reason_of(one: Mapping[str, Any]) -> str:
    """Return why a destination or a trigger is in its state."""
    return str(one.get("message") or one["reason"])


def is_ill(state: str) -> bool:
    """Say whether a state of a destination or a trigger wants a person."""
    return state in _ILL or state == "orphaned"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as a person reads them."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
