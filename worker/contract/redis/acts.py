"""Acts of people, kept in a capped stream: who did what, when, to how many, and why.

An act that is one command of Redis is kept by the script that carries it out. One of many steps is
kept before its first step, and again at its end with what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson
import redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import Value, run_script

MOST_ACTS: Final = 10_000
BEGUN: Final = "begun"
DONE: Final = "done"
BROKEN_OFF: Final = "broken off"
_CARRY_OUT: Final = """\
#!lua flags=allow-oom
-- Carries a command out and keeps the act, also in a full Redis.
-- KEYS[1] what the command changes; no matter without one  [2] acts
-- ARGV[1] acts that are kept  [2] the act as JSON  [3] 1 = keep it only if the command changed
--   something; then the command, without its key
-- Returns the command's answer; without one, the act's id.
if #ARGV == 3 then
  return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'a', ARGV[2])
end
local answer = redis.call(ARGV[4], KEYS[1], unpack(ARGV, 5))
if ARGV[3] == '0' or answer ~= 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'a', ARGV[2])
end
return answer
"""


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


def note_act(client: redis.Redis, act: Act) -> str:
    """Keep an act; returns its id.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        answer = run_script(
            client, _CARRY_OUT, (keys.ACTS, keys.ACTS), (MOST_ACTS, orjson.dumps(asdict(act)), 0)
        )
    return str(answer.decode())


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
        RedisUnavailable: Redis can't be asked.
    """
    args = (MOST_ACTS, orjson.dumps(asdict(act)), int(only_if_changed), *command)
    with redis_errors():
        return run_script(client, _CARRY_OUT, (key, keys.ACTS), args)


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
        act = replace(Act(**orjson.loads(fields[b"a"])), at_ms=int(name.partition("-")[0]))
        if act.ends:
            ends[act.ends] = act
        elif name in ends:
            end = ends.pop(name)
            yield replace(act, count=end.count, outcome=end.outcome)
        else:
            yield act
