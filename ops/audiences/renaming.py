"""Renaming an audience in Redis, so that events of its former slug count for the new one.

It is told to Redis first. Whoever takes the lease of a partition afterwards carries over what comes
under the former slug; once everybody has gone who held a lease before, the ledger says of the
former slug what it will say for good. So nobody's membership changes between reading and moving it,
and a command that is killed in between is simply given again.
"""

from __future__ import annotations

from typing import Any, Final

from redis import Redis

from ops.state import scripts
from ops.terminal.waiting import awaited
from producer.sync.book import SyncBook
from worker.contract import keys
from worker.contract.numbering import Numbering
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall
from worker.contract.settings import Settings
from worker.errors import OperationsMustAct

_LOOK_SECONDS: Final = 0.1
_LOCK_SECONDS: Final = 30.0


def renamed_slugs(client: Redis) -> dict[str, str]:
    """Return the new slug of each former slug."""
    with redis_errors():
        answer: Any = client.hgetall(keys.RENAMED)
    return {former.decode(): slug.decode() for former, slug in answer.items()}


def declare(client: Redis, old: str, new: str) -> int:
    """Give events and ids of a slug to another one; return the number of ids."""
    scripts.run(client, "rename", [ScriptCall([keys.RENAMED], [old, new])])
    with redis_errors():
        known: Any = client.hgetall(keys.AUDIENCES)
        ids = [audience_id for audience_id, slug in known.items() if slug.decode() == old]
        if ids:
            client.hset(keys.AUDIENCES, mapping=dict.fromkeys(ids, new))
    return len(ids)


def give_syncs(
    client: Redis, settings: Settings, partitions: Numbering, old: str, new: str
) -> list[str]:
    """Give the members that syncs know of one slug to another; return the syncs' names.

    Raises:
        OperationsMustAct: A step of one does not end.
    """
    given = []
    for name in settings.sync:
        book = SyncBook(client, name, partitions)
        if book.peek().audience == old:
            _give(book, new)
            given.append(name)
    return given


def _give(book: SyncBook, audience: str) -> None:
    """Give a sync's members to another slug; a run in progress starts again."""
    taken = awaited(book.take, _LOCK_SECONDS, _LOOK_SECONDS)
    if taken is None:
        raise OperationsMustAct(f"A step of sync '{book.name}' does not end; try again.")
    run, _ = taken
    run.give_to(audience)
    book.save(run, ends=True)
