"""What stands in Redis after publishing."""

from typing import NamedTuple

import orjson

from segrelay.worker.contract.events import Header, decode_profile, read_entry
from segrelay.worker.contract.keys import PartitionKeys


class Entry(NamedTuple):
    lane: str
    trigger: str
    partition: int
    header: Header
    profile: dict
    place: tuple[str, bytes]
    """The key of its stream, and its id."""


def entries(client, destination="insider", partitions=16):
    found = []
    for number in range(partitions):
        keys = PartitionKeys(destination, number)
        for raw in sorted(client.smembers(keys.streams)):
            lane, _, trigger = raw.decode().partition("|")
            stream = keys.stream(raw.decode())
            for entry_id, fields in client.xrange(stream):
                _, header, packed = read_entry(fields)
                profile = orjson.loads(decode_profile(packed))
                found.append(Entry(lane, trigger, number, header, profile, (stream, entry_id)))
    return found


def counts(client, destination="insider", partitions=16):
    total = {}
    for number in range(partitions):
        for name, value in client.hgetall(PartitionKeys(destination, number).counts).items():
            total[name.decode()] = total.get(name.decode(), 0) + int(value)
    return total
