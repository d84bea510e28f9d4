"""The way from the newest dead letters to the oldest."""

import re
from html import unescape

import pytest

from segrelay.ops.console import look
from segrelay.ops.state.partitions import all_partitions

DIED_MS = 1_795_500_000_000
KILLED = 1_700
"""The letters that one drain has killed in one millisecond: more than a page reads."""


@pytest.fixture
def killed(relay):
    """Letters that all died in the same millisecond, and the oldest, of another cause, in each."""
    partitions = all_partitions(relay.client, relay.settings)[:3]
    for partition in partitions:
        names = [
            f"{partition.destination}.{partition.number}.{number:05}" for number in range(KILLED)
        ]
        texts = {
            name: f'{{"id":"{name}","last_at_ms":{DIED_MS},"cause":"{"rare" if not n else "often"}"'
            ',"reason":"refused","trigger":"vip-enter","audience":"vip","direction":"enter"'
            ',"message":"no","stream":"live|vip-enter","answer":"","profile":{}}'
            for n, name in enumerate(names)
        }
        relay.client.hset(partition.dead_letters, mapping=texts)
        relay.client.zadd(partition.dead_letter_times, dict.fromkeys(names, DIED_MS))
        relay.client.hset(partition.causes, mapping={"rare|n": 1, "often|n": KILLED - 1})
    return {name for p in partitions for name in relay.client.hkeys(p.dead_letters)}


def letters(console, address):
    """Return the letters of all pages, as somebody sees them who always goes on."""
    seen = []
    for _ in range(10 + 3 * KILLED // 50):
        page = console.get(address).text
        seen += re.findall(r'href="/letters/([^"]+)"', page)
        on = re.search(r'href="([^"]+)">(?:More|Look at older ones)<', page)
        if on is None:
            return seen
        address = unescape(on[1])
    raise AssertionError("it never ends")


def test_each_letter_is_shown_once_however_many_died_in_one_millisecond(console, killed):
    assert look.MOST_READ < KILLED

    seen = letters(console, "/letters")

    assert len(seen) == len(killed) == 3 * KILLED
    assert {name.encode() for name in seen} == killed


@pytest.mark.usefixtures("killed")
def test_a_cause_with_three_letters_is_found_behind_all_others(console):
    assert len(letters(console, "/letters?cause=rare")) == 3
