"""Carrying what partitions know of stable ids to partitions with other numbers.

The home of a stable id follows from its own digest, and the list of an identity's stable ids
belongs to the partition of that identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ops.moving.carrying import STEP, Carrier, in_parts
from ops.moving.contents import Contents
from ops.moving.held import HeldCall, run_held
from worker.contract.keys import DIGEST_BYTES
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import Value

_LISTS: Final = "lists"
_RECORDS: Final = "records"
_KINDS: Final = ((_LISTS, "i*"), (_RECORDS, "u*"))
_CHANGED: Final = "changed"


def carry_stable_ids(contents: Contents) -> None:
    """Move records, lists, changes that wait, and the counts of changes.

    Raises:
        OperationsMustAct: A lease was taken over.
        RedisUnavailable: Do it again.
    """
    for kind, pattern in _KINDS:
        for carrier, names in contents.found(pattern):
            for part in in_parts(names, STEP):
                contents.step()
                _carry(carrier, kind, part)
    for carrier in contents.carriers.values():
        contents.step()
        carrier.hash("changes", carrier.by_digest)
        _carry_counts(carrier)


def _carry(carrier: Carrier, kind: str, names: Sequence[bytes]) -> None:
    with redis_errors():
        pipe = carrier.client.pipeline(transaction=False)
        for name in names:
            pipe.get(name)
            pipe.pttl(name)
        found: Any = pipe.execute()
    into: dict[int, tuple[list[str | bytes], list[Value]]] = {}
    for name, text, left_ms in zip(names, found[::2], found[1::2], strict=True):
        if text is not None:
            target = carrier.choose(name[-DIGEST_BYTES:])
            keys, args = into.setdefault(target, ([], [kind]))
            keys.append(carrier.place(target).tag.encode() + name[-DIGEST_BYTES - 1 :])
            args += (text, max(0, left_ms))
    calls = [HeldCall(carrier.targets[at], *write) for at, write in into.items()]
    run_held(carrier.client, "stable_in", calls)
    with redis_errors():
        carrier.client.unlink(*names)


def _carry_counts(carrier: Carrier) -> None:
    old, new = carrier.old.place.changed, carrier.place(carrier.home).changed
    with redis_errors():
        counts: Any = carrier.client.hgetall(old)
    if not counts:
        return
    pairs: list[Value] = [each for pair in counts.items() for each in pair]
    mark = f"{carrier.prefix}{_CHANGED}"
    carried = carrier.carried(carrier.home)
    carrier.targets[carrier.home].run("changed_in", [new, carried], [mark, *pairs])
    carrier.old.run("fields_out", [old], ["hash", *pairs])
    carrier.forget(carrier.home, [mark])
