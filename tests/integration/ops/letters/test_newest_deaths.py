"""The newest dead letters as a page reads them: bounded, however many there are."""

import pytest

from segrelay.ops.dead_letters.reading import newest_deaths, read_deaths
from segrelay.ops.kept import EVERYTHING, Filter
from segrelay.ops.state.partitions import all_partitions


@pytest.fixture
def partitions(relay):
    return all_partitions(relay.client, relay.settings)


@pytest.fixture
def die(relay, partitions):
    """Make letters die in one partition, a millisecond after each other."""

    def make(number, times):
        partition = partitions[number]
        for at_ms in times:
            name = f"{partition.id}.{partition.number}.{at_ms}"
            text = f'{{"id":"{name}","last_at_ms":{at_ms},"profile":{{}}}}'
            relay.client.hset(partition.dead_letters, name, text)
            relay.client.zadd(partition.dead_letter_times, {name: at_ms})

    return make


def times(deaths):
    return [one.at_ms for one in deaths]


def test_the_newest_of_all_partitions_come_in_order(relay, partitions, die):
    die(0, [1, 4, 5])
    die(1, [2, 3, 6])

    deaths, is_whole = newest_deaths(relay.client, partitions, EVERYTHING, 4)

    assert times(deaths) == [6, 5, 4, 3]
    assert not is_whole
    assert [one["last_at_ms"] for one in read_deaths(relay.client, deaths)] == [6, 5, 4, 3]


def test_a_partition_with_very_many_hides_no_newer_one_of_another(relay, partitions, die):
    die(0, range(100, 200))
    die(1, range(1, 50))

    deaths, is_whole = newest_deaths(relay.client, partitions, EVERYTHING, len(partitions))

    assert times(deaths) == sorted(times(deaths), reverse=True)
    assert times(deaths) == list(range(199, 199 - len(deaths), -1))
    assert deaths
    assert not is_whole


def test_all_that_there_are_are_whole_and_times_choose(relay, partitions, die):
    die(0, [1, 2, 3])
    die(1, [4])

    assert newest_deaths(relay.client, partitions, EVERYTHING, 10)[1]
    deaths, is_whole = newest_deaths(relay.client, partitions, Filter(since_ms=2, until_ms=3), 10)
    assert (times(deaths), is_whole) == ([3, 2], True)


def test_a_letter_that_has_gone_meanwhile_is_left_out(relay, partitions, die):
    die(0, [1, 2])
    deaths, _ = newest_deaths(relay.client, partitions, EVERYTHING, 10)
    relay.client.hdel(partitions[0].dead_letters, deaths[0].id)

    assert [one["last_at_ms"] for one in read_deaths(relay.client, deaths)] == [1]
