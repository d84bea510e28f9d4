"""The versions of triggers' templates, with the results of their canaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson
from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.words import Death, Skip

KINDS: Final = ("delivered", "skipped", "dead")
UNMADE: Final = frozenset(
    {
        f"skipped|{Skip.DUPLICATE}",
        f"skipped|{Skip.SUPERSEDED}",
        f"skipped|{Skip.ALREADY_THERE}",
        f"dead|{Death.AMBIGUOUS}",
        f"dead|{Death.UNREADABLE}",
    }
)
"""Outcomes that say nothing about a template, since they do not depend on its result."""

_LET_GO: Final = """\
#!lua flags=allow-oom
-- A person lets a trigger go on: after its canary, or, if it is not paused, in the midst of it.
-- KEYS[1] {segrelay}:versions; canary.lua lists its fields   ARGV[1] trigger  [2] 1 = it was paused
-- Returns 1 if a canary was ended.
local key, trigger = KEYS[1], ARGV[1]
local stored = redis.call('HGET', key, trigger)
local goes = redis.call('HEXISTS', key, trigger .. '|left') == 1
if not stored or (goes and ARGV[2] == '1') then return 0 end
redis.call('HSET', key, trigger .. '|approved', cjson.decode(stored).version)
return redis.call('HDEL', key, trigger .. '|left', trigger .. '|out') > 0 and 1 or 0
"""


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """The version of a trigger's template.

    Outcomes are counted by name and reason, e.g. `delivered`, `skipped|asserted`.

    Args:
        version: The content hash.
        since_ms: When it was first used; Redis' clock.
        base: Counts of outcomes by then.
        before: The one before it; "" = none is known.
        did: Counts of outcomes of the one before.
        canary: How many deliveries go first; 0 = it has none.
        left: How many of these have no outcome yet, where the canary goes on.
        outcomes: Of the deliveries of its canary.
    """

    version: str
    since_ms: int = 0
    base: Mapping[str, int] = field(default_factory=dict)
    before: str = ""
    did: Mapping[str, int] = field(default_factory=dict)
    canary: int = 0
    left: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    def dumps(self) -> bytes:
        """Return the version as Redis keeps it; its canary's counts are kept beside it."""
        stored = asdict(self)
        del stored["left"], stored["outcomes"]
        return orjson.dumps(stored)

    def since(self, now: Mapping[str, int]) -> dict[str, int]:
        """Return the outcomes since the version was first used.

        Args:
            now: Counts of outcomes by now.
        """
        grown = {name: count - self.base.get(name, 0) for name, count in now.items()}
        return {name: count for name, count in sorted(grown.items()) if count > 0}


def parse_versions(stored: Mapping[bytes, bytes]) -> dict[str, TemplateVersion]:
    """Return the versions of templates that the hash in Redis holds, by trigger."""
    found: dict[str, TemplateVersion] = {}
    for name, text in stored.items():
        if b"|" in name:
            continue
        one = TemplateVersion(**orjson.loads(text))
        shares = orjson.loads(stored.get(name + b"|out", b"{}"))
        out = sum(share[0] for share in shares.values())
        found[name.decode()] = replace(
            one,
            left=int(stored.get(name + b"|left", 0)) + out,
            outcomes=orjson.loads(stored.get(name + b"|outcomes", b"{}")),
        )
    return found


def read_versions(client: Redis) -> dict[str, TemplateVersion]:
    """Read the versions of templates from Redis, by trigger."""
    with redis_errors():
        stored: Any = client.hgetall(keys.VERSIONS)
    return parse_versions(stored)


def has_canary(client: Redis, trigger: str) -> bool:
    """Say whether the canary of a trigger's version goes on."""
    with redis_errors():
        return bool(client.hexists(keys.VERSIONS, f"{trigger}|left"))


def let_go(client: Redis, trigger: str, *, was_paused: bool) -> bool:
    """Release a trigger's version from its canary's limit; return whether there was one.

    Of a trigger that was paused for another reason in the midst of its canary, the canary goes on.
    """
    with redis_errors():
        return bool(client.eval(_LET_GO, 1, keys.VERSIONS, trigger, int(was_paused)))


def in_words(outcomes: Mapping[str, int]) -> str:
    """Describe outcomes in words: their shares in percent, and the reasons."""
    made = {name: count for name, count in outcomes.items() if name not in UNMADE and count}
    total = sum(made.values())
    if not total:
        return "nothing yet"
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for name, count in made.items():
        kind, _, reason = name.partition("|")
        kinds[kind][reason] += count
    told = (_kind_in_words(kind, reasons, total) for kind, reasons in kinds.items())
    return f"{', '.join(told)} of {total:,}"


def _kind_in_words(kind: str, reasons: Counter[str], total: int) -> str:
    named = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common() if reason)
    return f"{reasons.total() / total:.1%} {kind}" + (f" ({named})" if named else "")


def summary(trigger: str, one: TemplateVersion) -> str:
    """Return why a trigger is paused after its canary."""
    over = f"the canary of version {one.version} is over: {in_words(one.outcomes)}"
    go_on = f"`segrelay resume {trigger}` lets the rest go"
    if not one.before:
        return f"{over}; no version was before it. {go_on}."
    return (
        f"{over}; version {one.before} before it: {in_words(one.did)}. {go_on}; to undo it put the"
        " older template back first."
    )
