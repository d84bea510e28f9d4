"""Reading all fields of a hash, or all keys of partitions, in many calls with a cursor.

A cursor counts in one process of a server only: another one has the same keys in another order. So
each answer names the process, and where another one answers, after a failover, a restart or the
move of a slot, the cursor is not used there: what it belongs to is read anew.

Keys of a Cluster are read slot by slot. While a slot is moved key by key, its keys are on two
nodes, and no node has all of them: its reading waits for the end of the move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import NoOwner, Redis
from segrelay.worker.contract.redis.cluster import ClusterClient
from segrelay.worker.contract.redis.scripts import load_script, run_script

MOVE_SECONDS: Final = 60.0
"""Seconds that a reading waits for a slot that is being moved."""
_SCAN: Final = load_script("scan")
_FIELDS_A_CALL: Final = 1_000
_KEYS_A_CALL: Final = 2_000
_BEGIN: Final = b"0"

_T = TypeVar("_T")
ScanAnswer = tuple[bytes, bytes, list[bytes]]
"""The server's process, the next cursor, and the keys or fields that were found."""


class AnotherServer(Exception):  # noqa: N818 - no failure: the reading begins anew
    """Another server process has answered, for which the cursor means nothing."""


class ScanPart(NamedTuple):
    """A part of all keys that is read again as a whole if another server process answers.

    Attributes:
        key: The hash tag alone, in the slot that is read; on a single server any key.
        pattern: Of the keys, as SCAN takes it.
    """

    key: str
    pattern: str


def scan_parts(
    client: Redis, partitions: Sequence[PartitionKeys], pattern: str
) -> Iterator[ScanPart]:
    """Yield the parts in which the keys of partitions are read.

    Args:
        client: On a single server, one part is all of it, however many partitions there are.
        partitions: The partitions.
        pattern: Of the keys, without the partition's tag.
    """
    if isinstance(client, ClusterClient):
        for partition in partitions:
            yield ScanPart(partition.tag, partition.tag + pattern)
        return
    ids = {partition.destination for partition in partitions}
    part = ids.pop() if len(ids) == 1 else "*"
    yield ScanPart(keys.FORMAT, f"{{{part}:*}}{pattern}")


def read_keys(
    client: Redis,
    part: ScanPart,
    kind: str = "",
    *,
    count: int = _KEYS_A_CALL,
    patient: bool = True,
) -> Iterator[list[bytes]]:
    """Yield the keys of a part, some at a time; some may come twice.

    Args:
        client: Redis.
        part: See `scan_parts`.
        kind: The type of the keys, as TYPE names it; "" = any.
        count: About how many keys are looked at in one call.
        patient: Wait while the slot is moved; else some of its keys may be left out.

    Raises:
        AnotherServer: The part has to be read anew.
        RedisUnavailable: Redis can't be asked, or the slot is being moved for long.
    """
    call = _in_whole_slot if patient and isinstance(client, ClusterClient) else run_script

    def ask(cursor: bytes) -> ScanAnswer:
        args = ("SCAN", cursor, count, part.pattern, kind)
        answer: ScanAnswer = call(client, _SCAN, (part.key,), args)
        return answer

    return _read(ask)


def scan_keys(
    client: Redis, partitions: Sequence[PartitionKeys], pattern: str, kind: str = ""
) -> Iterator[list[bytes]]:
    """Yield the keys of partitions, some at a time; some may come twice.

    See `scan_parts` and `read_keys` for the arguments and for what is raised.
    """
    for part in scan_parts(client, partitions, pattern):
        yield from until_whole(partial(read_keys, client, part, kind))


def scan_fields(client: Redis, key: str) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the fields of a hash with their values, some at a time; some may come twice.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """

    def ask(cursor: bytes) -> ScanAnswer:
        args = ("HSCAN", cursor, _FIELDS_A_CALL)
        answer: ScanAnswer = run_script(client, _SCAN, (key,), args)
        return answer

    for found in until_whole(lambda: _read(ask)):
        yield list(zip(found[::2], found[1::2], strict=True))


def until_whole(read: Callable[[], Iterable[_T]]) -> Iterator[_T]:
    """Yield what `read` yields, and begin again whenever another server process answers."""
    while True:
        try:
            yield from read()
        except AnotherServer:
            continue
        return


def _read(ask: Callable[[bytes], ScanAnswer]) -> Iterator[list[bytes]]:
    reader, cursor = b"", _BEGIN
    while True:
        server, following, found = ask(cursor)
        if reader not in {b"", server}:
            raise AnotherServer
        reader, cursor = server, following
        if found:
            yield found
        if cursor == _BEGIN:
            return


def _in_whole_slot(
    client: Redis, text: str, names: Sequence[str], args: Sequence[Any]
) -> ScanAnswer:
    """Run a script on a node that has all keys of a slot, waiting while the slot is moved."""
    gives_up_at = time.monotonic() + MOVE_SECONDS
    while True:
        pipe = client.pipeline(transaction=False)
        for words in (("MULTI",), ("EVAL_RO", text, len(names), *names, *args), ("EXEC",)):
            pipe.execute_command(*words)
        answers = pipe.execute(raise_on_error=False)
        lost = [each for each in answers if isinstance(each, Exception)]
        if not lost:
            answer: ScanAnswer = answers[-1][0]
            return answer
        if not isinstance(lost[0].__cause__, NoOwner) or time.monotonic() > gives_up_at:
            raise lost[0]
