"""Acts of people, kept in a capped stream: who did what, when, to how many, and why.

An act that is one command of Redis is kept by the script that carries it out. One of many steps is
kept before its first step, and again at its end with what came of it. Both may be repeated where
the answer was lost: what is kept already is neither kept nor carried out again.

Acts that leave something half done if they are broken off stand in a hash of their own until they
are done.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson
import redis

from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import redis_errors
from segrelay.worker.contract.redis.scripts import Value, run_script

MOST_ACTS: Final = 10_000
BEGUN: Final = "begun"
DONE: Final = "done"
BROKEN_OFF: Final = "broken off"
_CARRY_OUT: Final = """\
#!lua flags=allow-oom
-- Carries a command out and keeps the act, also in a full Redis; once, however often it is called.
-- KEYS[1] what the command changes; no matter without one  [2] acts  [3] unfinished acts
-- ARGV[1] acts that are kept  [2] the act as JSON  [3] the mark of this call, the same each time it
--   is repeated  [4] the field of an unfinished act; '' = it leaves nothing half done
--   [5] 1 = the act is done  [6] 1 = keep it only if the command changed something; then the
--   command, without its key
-- Returns the command's answer; without one, the act's id.
for _, row in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
  if row[2][3] == 'm' and row[2][4] == ARGV[3] then return tonumber(row[2][6]) or row[1] end
end
local answer = ''
@change
local id = ''
if ARGV[6] == '0' or answer ~= 0 then
  id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*',
    'a', ARGV[2], 'm', ARGV[3], 'r', answer)
end
if ARGV[4] ~= '' and ARGV[5] == '1' then
  redis.call('HDEL', KEYS[3], ARGV[4])
elseif ARGV[4] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[4], id .. '|' .. ARGV[2])
end
return answer == '' and id or answer
"""
_COMMAND: Final = _CARRY_OUT.replace(
    "@change", "if #ARGV > 6 then answer = redis.call(ARGV[7], KEYS[1], unpack(ARGV, 8)) end"
)


@dataclass(frozen=True, slots=True)
class Act:
    """An act of a person.

    Args:
        what: E.g. `pause` or `dlq discard`.
        by: Who did it.
        subject: To what; "" = to all.
        count: To how many.
        reason: As the person gave it.
        arguments: Filters and choices, masked.
        outcome: `done`, `begun`, or `broken off`.
        ends: The id of the entry about its begin.
        at_ms: When, by Redis' clock; of one of many steps, when it began.
        key: Tells it from all other acts; "" = it was kept by an earlier version.
    """

    what: str
    by: str
    subject: str = ""
    count: int | None = None
    reason: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    outcome: str = DONE
    ends: str = ""
    at_ms: int = 0
    key: str = ""


def note_act(client: redis.Redis, act: Act, *, stands: bool = False) -> str:
    """Keep an act; returns its id.

    Args:
        client: Redis.
        act: The act.
        stands: It leaves something half done until it is done.

    Raises:
        RedisUnavailable: Redis can't be asked; keeping it again is safe.
    """
    field_name = "|".join((act.what, act.subject, *act.arguments.values())) if stands else ""
    return str(_carried_out(client, act, keys.ACTS, unfinished=field_name).decode())


def read_unfinished(client: redis.Redis) -> list[Act]:
    """Return the acts that have left something half done, or are under way; the oldest first."""
    with redis_errors():
        stored: Any = client.hvals(keys.UNFINISHED)
    found = [text.partition(b"|")[::2] for text in stored]
    acts = [replace(Act(**orjson.loads(text)), at_ms=_ms(entry_id)) for entry_id, text in found]
    return sorted(acts, key=lambda act: act.at_ms)


def _carried_out(
    client: redis.Redis,
    act: Act,
    key: str,
    *command: Value,
    script: str = _COMMAND,
    unfinished: str = "",
    only_if_changed: bool = False,
) -> Any:
    mark = f"{act.key or secrets.token_hex(8)}|{act.outcome}|{key}"
    is_done = int(act.outcome == DONE)
    names = (key, keys.ACTS, keys.UNFINISHED)
    args = (MOST_ACTS, orjson.dumps(asdict(act)), mark, unfinished, is_done, int(only_if_changed))
    with redis_errors():
        return run_script(client, script, names, (*args, *command))


def carry_out(
    client: redis.Redis, act: Act, key: str, *command: Value, only_if_changed: bool = False
) -> Any:
    """Carry a command out and keep the act, both or neither; returns the command's answer.

    Args:
        client: Redis.
        act: The act.
        key: That the command changes.
        command: Its name, and the words behind its key.
        only_if_changed: Keep nothing if the answer is 0.

    Raises:
        RedisUnavailable: Redis can't be asked; carrying it out again is safe.
    """
    return _carried_out(client, act, key, *command, only_if_changed=only_if_changed)


def carry_out_script(client: redis.Redis, act: Act, key: str, change: str, *args: Value) -> Any:
    """Carry out a change that is more than one command, and keep the act, if it changed something.

    Args:
        client: Redis.
        act: The act.
        key: `KEYS[1]` of the change.
        change: Lua that sets `answer`: 0 = nothing was changed.
        args: `ARGV[7]` and those that follow.

    Returns:
        The change's answer.

    Raises:
        RedisUnavailable: Redis can't be asked; carrying it out again is safe.
    """
    script = _CARRY_OUT.replace("@change", change)
    return _carried_out(client, act, key, *args, script=script, only_if_changed=True)


def read_acts(client: redis.Redis) -> Iterator[Act]:
    """Yield the acts that are kept, the newest first; an act of many steps comes once.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        rows: Any = client.xrevrange(keys.ACTS)
    ends: dict[str, Act] = {}
    for entry_id, fields in rows:
        name = entry_id.decode()
        act = replace(Act(**orjson.loads(fields[b"a"])), at_ms=_ms(entry_id))
        if act.ends:
            ends[act.ends] = act
        elif name in ends:
            end = ends.pop(name)
            yield replace(act, count=end.count, outcome=end.outcome)
        else:
            yield act


def _ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
