"""Carrying what a partition knows of stable ids to another destination.

Lists come first, then records, then changes: nobody is
renamed to an identity of somebody else who is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from segrelay.ops.moving.carrying import STEP, Carrier, in_parts
from segrelay.ops.state.partitions import ask_each
from segrelay.worker.contract.keys import DIGEST_BYTES, digest_of
from segrelay.worker.contract.people import StableRecord
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import Value

LISTS: Final = "i*"
RECORDS: Final = "u*"
_CHANGED: Final = "changed"


def carry_lists(carrier: Carrier, names: Sequence[bytes]) -> None:
    """Move the lists of stable ids that came with each identity."""
    for part in in_parts(names, STEP):
        found = _texts(carrier, part)
        names_there: list[str | bytes] = []
        args: list[Value] = []
        for name, (text, kept_ms) in found.items():
            names_there.append(carrier.place.claims(_digest_in(name)))
            args += (text, kept_ms)
        if names_there:
            carrier.new.run("claims_in", names_there, args)
        _remove(carrier, {name: text for name, (text, _) in found.items()})


def carry_records(carrier: Carrier, names: Sequence[bytes]) -> int:
    """Move records of stable ids; return how many stay because a change of theirs waits there."""
    staying = 0
    for part in in_parts(names, STEP):
        found = _texts(carrier, part)
        changing = _changing(carrier, found)
        records: list[str | bytes] = [carrier.place.changes, carrier.carried]
        args: list[Value] = []
        for name, (text, kept_ms) in found.items():
            stable = _digest_in(name)
            records.append(carrier.place.stable(stable))
            identity = digest_of(StableRecord.loads(text).key).hex()
            args += (_mark(stable), stable.hex(), text, kept_ms, identity, int(name in changing))
        if found:
            carrier.new.run("stable_in", records, args)
        arrived = _leave_arrived(carrier, {name: text for name, (text, _) in found.items()})
        staying += len(found) - arrived
    return staying


def _leave_arrived(carrier: Carrier, texts: Mapping[bytes, bytes]) -> int:
    """Remove records that are marked as arrived, then the marks; return the number of records."""
    if not texts:
        return 0
    marks = [_mark(_digest_in(name)) for name in texts]
    found: Any = carrier.client.hmget(carrier.carried, marks)
    arrived = [name for name, is_there in zip(texts, found, strict=True) if is_there]
    if arrived:
        _remove(carrier, {name: texts[name] for name in arrived})
        carrier.forget([_mark(_digest_in(name)) for name in arrived])
    return len(arrived)


def carry_changes(carrier: Carrier) -> None:
    """Move waiting changes of stable ids, except those of records that stay."""
    for part in scan_fields(carrier.client, carrier.old.place.changes):
        names = [carrier.old.place.stable(bytes.fromhex(name.decode())) for name, _ in part]
        left = _texts(carrier, names)
        going = [row for name, row in zip(names, part, strict=True) if name not in left]
        if going:
            carrier.fields("changes", going)


def carry_counts(carrier: Carrier) -> None:
    """Move the counts of people who were renamed by their stable ids."""
    old, new = carrier.old.place.changed, carrier.place.changed
    counts: Any = carrier.client.hgetall(old)
    if not counts:
        return
    pairs: list[Value] = [each for pair in counts.items() for each in pair]
    carrier.new.run("changed_in", [new, carrier.carried], [_CHANGED, *pairs])
    carrier.old.run("fields_out", [old], ["hash", *pairs])
    carrier.forget([_CHANGED])


def _texts(carrier: Carrier, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
    """Return the texts under these keys, and how long each is kept (ms; 0 = without an end)."""
    get, left = (lambda pipe, name: pipe.get(name)), (lambda pipe, name: pipe.pttl(name))
    found = ask_each(carrier.client, names, get, left)
    return {
        name: (text, max(0, left_ms))
        for name, text, left_ms in zip(names, found[::2], found[1::2], strict=True)
        if text is not None
    }


def _changing(carrier: Carrier, records: Mapping[bytes, object]) -> set[bytes]:
    """Return the records of stable ids whose change waits in the old partition."""
    if not records:
        return set()
    found: Any = carrier.client.hmget(
        carrier.old.place.changes, [_digest_in(name).hex() for name in records]
    )
    return {name for name, change in zip(records, found, strict=True) if change}


def _remove(carrier: Carrier, texts: Mapping[bytes, bytes]) -> None:
    if texts:
        carrier.old.run("texts_out", list(texts), list(texts.values()))


def _digest_in(name: bytes) -> bytes:
    return name[-DIGEST_BYTES:]


def _mark(stable: bytes) -> str:
    return f"stable|{stable.hex()}"
