"""Acts of people, kept in a capped stream: who did what, when, to how many, and why.

An act that is one command of Redis is kept by the script that carries it out. One of many steps is
kept before its first step, and again at its end with what came of it. Both may be repeated where
the answer was lost: what is kept already is neither kept nor carried out again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.records import read_record
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import Value, load_script, run_script

MOST_ACTS: Final = 10_000
BEGUN: Final = "begun"
DONE: Final = "done"
BROKEN_OFF: Final = "broken off"
_CARRY_OUT: Final = load_script("act_keep")


@dataclass(frozen=True, slots=True)
class Act:
    """An act of a person.

    Args:
        what: The command, e.g. `pause` or `dlq discard`.
        by: The person who did it.
        subject: The name of what it was done to; "" = all.
        count: The number of things that it was done to; None = it is not counted.
        reason: The reason that the person gave.
        arguments: The filters and choices of the command, masked.
        outcome: `done`, `begun`, or `broken off`.
        ends: The id of the entry about the act's begin, in the entry about its end; else "".
        at_ms: The time by Redis' clock; of an act of many steps, that of its begin.
        key: A text that tells the act from all others; "" = `carry_out` makes one.
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


def note_act(client: Redis, act: Act) -> str:
    """Keep an act; returns its id.

    Raises:
        RedisUnavailable: Redis can't be asked; keeping it again is safe.
    """
    return str(carry_out(client, act, keys.ACTS).decode())


def carry_out(
    client: Redis, act: Act, key: str, *command: Value, only_if_changed: bool = False
) -> Any:
    """Carry a command out and keep the act, both or neither; returns the command's answer.

    Args:
        client: Redis.
        act: The act.
        key: The key that the command changes.
        command: The command's name, and the words behind its key; () = there is none, and the
            answer is the act's id.
        only_if_changed: True if no act is kept where the command's answer is 0.

    Raises:
        RedisUnavailable: Redis can't be asked; carrying it out again is safe.
    """
    mark = f"{act.key or secrets.token_hex(8)}|{act.outcome}|{key}"
    args = (MOST_ACTS, orjson.dumps(asdict(act)), mark, int(only_if_changed))
    return run_script(client, _CARRY_OUT, (key, keys.ACTS), (*args, *command))


_READ_AT_ONCE: Final = 500


def read_acts(client: Redis) -> Iterator[Act]:
    """Yield the acts that are kept, the newest first; an act of many steps comes once.

    They are read in pages, so that who wants the newest few reads no more than a page.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    ends: dict[str, Act] = {}
    for entry_id, act in _entries(client):
        if act.ends:
            ends[act.ends] = act
        elif entry_id in ends:
            end = ends.pop(entry_id)
            yield replace(act, count=end.count, outcome=end.outcome)
        else:
            yield act


def _entries(client: Redis) -> Iterator[tuple[str, Act]]:
    latest = "+"
    while True:
        rows: Any = client.xrevrange(keys.ACTS, latest, count=_READ_AT_ONCE)
        entries = [(name.decode(), _act(name, fields[b"a"])) for name, fields in rows]
        yield from entries
        if len(rows) < _READ_AT_ONCE:
            return
        latest = f"({entries[-1][0]}"


def _act(entry_id: bytes, text: bytes) -> Act:
    found = read_record(Act, text) or Act("an act that can't be read", "")
    return replace(found, at_ms=int(entry_id.partition(b"-")[0]))
