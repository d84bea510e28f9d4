"""The way from the newest dead letters to the oldest, and to the acts on those that were chosen."""

import re
from html import unescape

import pytest

from segrelay.ops.console import look
from segrelay.ops.state.partitions import all_partitions
from tests.journeys.console.console_world import words

DIED_MS = 1_795_500_000_000
CAUSES = re.compile(
    r'data-label="cause">.*?<code>(\w+)</code>.*?data-label="letters">(\w+)<', re.DOTALL
)
KILLED = (1_700, 200, 200)
"""The letters of each partition that died in one millisecond: more than a page reads or counts."""

OFTEN = ("often", "refused", "vip-enter", "vip", "no")
RARE = ("rare", "too_large", "new-enter", "new", "insider/e.jsonnet:6: It is too large")


def letter(name, kind):
    cause, reason, trigger, audience, message = kind
    return (
        f'{{"id":"{name}","last_at_ms":{DIED_MS},"cause":"{cause}","reason":"{reason}"'
        f',"trigger":"{trigger}","audience":"{audience}","direction":"enter"'
        f',"message":"{message}","stream":"job-{audience}|{trigger}","answer":"","profile":{{}}}}'
    )


@pytest.fixture
def killed(relay):
    """Letters that all died in the same millisecond, and the oldest, of another cause, in each."""
    partitions = all_partitions(relay.client, relay.settings)[:3]
    for partition, count in zip(partitions, KILLED, strict=True):
        names = [
            f"{partition.destination}.{partition.number}.{number:05}" for number in range(count)
        ]
        texts = {name: letter(name, (RARE, OFTEN)[n > 0]) for n, name in enumerate(names)}
        relay.client.hset(partition.dead_letters, mapping=texts)
        relay.client.zadd(partition.dead_letter_times, dict.fromkeys(names, DIED_MS))
        relay.client.hset(partition.causes, mapping={"rare|n": 1, "often|n": count - 1})
        for cause, reason, trigger, _, message in (RARE, OFTEN):
            sample = f'{{"reason":"{reason}","trigger":"{trigger}","message":"{message}"}}'
            relay.client.hset(partition.causes, cause, sample)
    return {name for p in partitions for name in relay.client.hkeys(p.dead_letters)}


def letters(console, address):
    """Return the letters of all pages, as somebody sees them who always goes on."""
    seen = []
    for _ in range(10 + sum(KILLED) // 50):
        page = console.get(address).text
        seen += re.findall(r'href="/letters/([^"?]+)', page)
        on = re.search(r'href="([^"]+)">(?:More|Look at older ones)<', page)
        if on is None:
            return seen
        address = unescape(on[1])
    raise AssertionError("it never ends")


def test_each_letter_is_shown_once_however_many_died_in_one_millisecond(console, killed):
    assert KILLED[0] > look.MOST_READ

    seen = letters(console, "/letters")

    assert len(seen) == len(killed) == sum(KILLED)
    assert {name.encode() for name in seen} == killed


CHOICES = ("cause=rare", "reason=too_large", "trigger=new-enter", "audience=new", "text=TOO+large")


@pytest.mark.usefixtures("killed")
def test_three_letters_behind_all_others_are_on_the_first_page_of_their_filter_and_of_its_acts(
    console,
):
    for choice in CHOICES:
        page = console.get(f"/letters?{choice}").text

        assert page.count('href="/letters/insider.') == 3, choice
        assert "Look at older ones" not in page
        assert CAUSES.findall(page) == [("rare", "3")], choice

    page = console.get("/letters?trigger=new-enter&reason=too_large").text
    act = console.get(unescape(re.search(r'href="(/act\?act=dlq\+discard[^"]+)"', page)[1])).text
    which = unescape(re.search(r'href="([^"]+)">Which are they', act)[1])
    ticked = re.findall(r'name="ids" value="([^"]+)"', page)[:2]

    def act_on(command, **chosen):
        return words(console.get("/act", params={"act": f"dlq {command}", **chosen}).text)

    assert "It takes 3 letters" in words(act)
    assert 'href="/letters?trigger=new-enter&amp;reason=too_large"' in act
    assert console.get(which).text.count('href="/letters/insider.') == 3
    many = act_on("discard", trigger="vip-enter")
    assert "It takes more than 2,000 letters as of now" in many
    assert "Nothing is chosen" in act_on("replay", chosen="1")
    said = act_on("discard", ids=ticked)
    assert "It takes 2 letters" in said
    assert f"segrelay dlq discard --at-most=2 {' '.join(ticked)}" in said
