"""Noticing at the start of a process that the configuration has changed since the last start."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson
from redis import Redis

from ops.state.acts import act_of
from worker.contract import keys
from worker.contract.redis.acts import MOST_ACTS, Act
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import run_script
from worker.contract.settings import Settings

_NOTE: Final = """\
#!lua flags=allow-oom
-- Remembers the configuration of a process that starts, and keeps a change of it as an act.
-- KEYS[1] configuration  [2] acts
-- ARGV[1] its digests, as JSON  [2] as they were when somebody looked; '' = there were none
--   [3] acts that are kept  [4] the act as JSON; '' = keep none
-- Returns 1, or 0 if another process was quicker.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'a', ARGV[4]) end
return 1
"""
_DIGEST_CHARACTERS: Final = 12


def note_configuration(client: Redis, settings: Settings) -> None:
    """Keep it as an act if a process starts with another configuration than the one before.

    The act names the tables that differ, and no value.
    """
    new = dict(sorted(_digests(settings)))
    text = orjson.dumps(new)
    with redis_errors():
        stored: Any = client.get(keys.CONFIGURATION) or b""
        if stored == text:
            return
        known = orjson.loads(stored) if stored else {}
        changed = [name for name in {**known, **new} if known.get(name) != new.get(name)]
        act = _act(settings, changed) if known else None
        told = orjson.dumps(act) if act else b""
        run_script(client, _NOTE, (keys.CONFIGURATION, keys.ACTS), (text, stored, MOST_ACTS, told))


def _act(settings: Settings, changed: list[str]) -> Act:
    act = act_of("configuration", settings.fingerprint, arguments={"changed": sorted(changed)})
    return replace(act, count=len(changed))


def _digests(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each table's name and a digest of its values; a secret counts as set or unset."""
    document = settings.model_dump(mode="json", by_alias=True, exclude={"source", "folder"})
    for name, table in document.items():
        if name in {"fingerprint", "warnings"}:
            continue
        is_named = isinstance(table, dict) and all(isinstance(v, dict) for v in table.values())
        parts = table.items() if table and is_named else [("", table)]
        for part, value in parts:
            digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
            yield f"{name}.{part}".rstrip("."), digest[:_DIGEST_CHARACTERS]
