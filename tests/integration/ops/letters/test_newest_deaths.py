"""The walk from the newest dead letter to the oldest, which goes on behind any of them."""

import pytest

from segrelay.ops.dead_letters.reading import walk_deaths
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import EVERYTHING, Filter


@pytest.fixture
def partitions(relay):
    return all_partitions(relay.client, relay.settings)


@pytest.fixture
def die(relay, partitions):
    """Make letters die in one partition, a millisecond after each other."""

    def make(number, times):
        partition = partitions[number]
        for at_ms in times:
            name = f"{partition.destination}.{partition.number}.{at_ms}"
            text = f'{{"id":"{name}","last_at_ms":{at_ms},"profile":{{}}}}'
            relay.client.hset(partition.dead_letters, name, text)
            relay.client.zadd(partition.dead_letter_times, {name: at_ms})

    return make


def walked(relay, partitions, wanted=EVERYTHING, behind=""):
    return list(walk_deaths(relay.client, partitions, wanted, behind))


def times(walk):
    return [death.at_ms for death, _ in walk]


def test_a_partition_with_very_many_hides_no_newer_one_of_another(relay, partitions, die):
    die(0, range(100, 400))
    die(1, range(1, 50))

    assert times(walked(relay, partitions)) == [*range(399, 99, -1), *range(49, 0, -1)]


def test_times_choose(relay, partitions, die):
    die(0, [1, 2, 3])
    die(1, [4])

    assert times(walked(relay, partitions, Filter(since_ms=2, until_ms=3))) == [3, 2]


def test_a_cursor_goes_on_where_a_walk_ended_also_if_that_letter_has_gone(relay, partitions, die):
    for number in range(3):
        die(number, range(1, 9))
    whole = walked(relay, partitions)

    for place, (death, _) in enumerate(whole):
        assert walked(relay, partitions, behind=death.cursor) == whole[place + 1 :]
    gone = whole[4][0]
    relay.client.zrem(gone.partition.dead_letter_times, gone.id)
    assert walked(relay, partitions, behind=gone.cursor) == whole[5:]


def test_a_letter_that_has_gone_meanwhile_has_no_text(relay, partitions, die):
    die(0, [1, 2])
    relay.client.hdel(partitions[0].dead_letters, walked(relay, partitions)[0][0].id)

    assert [text is None for _, text in walked(relay, partitions)] == [True, False]
