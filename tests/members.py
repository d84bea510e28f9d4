"""The members that a sync knows, written and read in tests as the scripts do it."""

from itertools import chain

from segrelay.producer.sync.store import unpack_members
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.scripts import load_script

_CHANGE = """
local keys = {}
for i = 1, #ARGV, 2 do keys[#keys + 1] = ARGV[i] end
local roll = open_members(KEYS[1], keys)
for i = 1, #ARGV, 2 do set_member(roll, ARGV[i], ARGV[i + 1] ~= '' and ARGV[i + 1]) end
close_members(roll)
"""


def set_marks(client, partition, sync, marks):
    """Give people marks as members, by their keys; with an empty one, they are none any more."""
    words = chain.from_iterable((PROTECTION.seal_name(key), mark) for key, mark in marks.items())
    client.eval(load_script("_members") + _CHANGE, 1, partition.members(sync), *words)


def marks_of(client, partition, sync):
    """Return the marks of the members by their keys."""
    texts = client.hgetall(partition.members(sync))
    return {
        PROTECTION.unseal_name(name): mark
        for number, text in texts.items()
        if number.isdigit()
        for name, mark in unpack_members(text)
    }
