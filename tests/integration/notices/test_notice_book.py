"""Which problems are announced, once whatever the number of processes, on a real Redis."""

from contextlib import closing
from dataclasses import replace

import pytest

from segrelay.ops.status import alert_store as stores
from segrelay.ops.status.alert_store import (
    IN_DOUBT,
    MOST_TRIES,
    NOT_SENT,
    SENT,
    AlertStore,
    read_failure,
)
from segrelay.ops.status.problems import ATTENTION, ILL, HealthProblem
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import NotifySettings, Secret

PAUSED = HealthProblem("destination_paused", ILL, "insider", "401", "segrelay resume insider")
SLOW = HealthProblem("destination_slowed", ATTENTION, "insider", "429", "segrelay status")
CALM, QUIET = 10_000, 600_000


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as found:
        yield found


@pytest.fixture
def book(client):
    return store_of(client)


def store_of(client, **keys_of_notify):
    url = Secret("literal", "https://chat.example.com/hook")
    known = {"after_seconds": 5, "remind_after_seconds": 0}
    return AlertStore(client, NotifySettings(url=url, **(known | keys_of_notify)))


def announced(book):
    """Take and conclude all messages; returns what they say."""
    said = []
    while (taken := book.take()) is not None:
        book.conclude(taken, SENT)
        kind = {"begin": "begins", "end": "over"}.get(taken.alert.kind, taken.alert.kind)
        said.append((kind, taken.alert.problem.name))
    return said


def kinds(book):
    return [kind for kind, _ in announced(book)]


def test_a_problem_is_announced_once_when_it_has_stood_and_once_when_it_is_over(book):
    for now in range(1_000, 20_000, 1_000):
        book.observe([PAUSED], now)
    assert announced(book) == [("begins", "destination_paused")]

    for now in range(20_000, 40_000, 1_000):
        book.observe([], now)
    assert announced(book) == [("over", "destination_paused")]


def test_what_is_over_sooner_than_it_has_stood_is_not_announced(book):
    for now in range(1_000, 60_000, 6_000):
        book.observe([PAUSED], now)
        book.observe([PAUSED], now + 4_000)
        book.observe([], now + 5_000)

    assert announced(book) == []


def stand(book, problems, seconds, now):
    """Let problems stand for a while; returns the time at the end."""
    for _ in range(seconds):
        book.observe(problems, now := now + 1_000)
    return now


def test_a_problem_that_comes_and_goes_is_not_announced_each_time(book):
    now = 1_000
    for _ in range(20):
        now = stand(book, [PAUSED], 20, now)
        now = stand(book, [], 20, now)
    assert kinds(book) == ["begins", "over", "begins", "begins"]

    book.observe([], now + QUIET)
    assert kinds(book) == ["over"]


def test_a_problem_that_lasts_is_announced_whatever_came_before(book):
    now = 1_000
    for _ in range(3):
        now = stand(book, [PAUSED], 7, now)
        now = stand(book, [], 20, now)
    assert kinds(book) == ["begins", "over", "begins"]

    stand(book, [PAUSED], 17, now)

    assert kinds(book) == ["begins"]


def test_a_problem_that_lasts_is_told_again_after_a_while(client):
    book = store_of(client, remind_after_seconds=60)
    now = stand(book, [PAUSED], 190, 1_000)
    assert kinds(book) == ["begins", "reminder", "reminder", "reminder"]

    stand(book, [], 12, now)
    assert kinds(book) == ["over"]


def test_what_is_only_worth_a_look_is_not_told_again(client):
    book = store_of(client, remind_after_seconds=60, severity="attention")
    stand(book, [SLOW], 190, 1_000)

    assert kinds(book) == ["begins"]


def test_a_problem_that_becomes_ill_is_told(client):
    book = store_of(client, severity="attention")
    now = stand(book, [SLOW], 10, 1_000)
    assert kinds(book) == ["begins"]

    now = stand(book, [replace(SLOW, severity=ILL)], 10, now)
    stand(book, [SLOW], 10, now)

    assert kinds(book) == ["worse"]


def test_the_address_that_takes_no_message_is_known_until_it_takes_one(client, book):
    stand(book, [PAUSED], 7, 1_000)
    taken = book.take()
    book.conclude(taken, NOT_SENT, "it answered 404")
    make_due(client)
    book.conclude(book.take(), IN_DOUBT, "it answered 500")

    failing = read_failure(client)
    assert failing is not None
    assert (failing.tries, failing.reason) == (2, "it answered 500")

    make_due(client)
    book.conclude(book.take(), SENT)
    assert read_failure(client) is None


def test_that_messages_are_not_taken_is_not_told_to_those_who_do_not_take_them(client):
    loud = store_of(client, severity="attention")
    stand(loud, [HealthProblem("notify_fails", ATTENTION, "", "404", "do")], 10, 1_000)

    assert kinds(loud) == []


def test_a_short_pause_of_a_problem_is_not_its_end(book):
    book.observe([PAUSED], 1_000)
    book.observe([PAUSED], 6_000)
    book.observe([], 7_000)
    book.observe([], 6_000 + CALM)
    book.observe([PAUSED], 7_000 + CALM - 1)

    assert announced(book) == [("begins", "destination_paused")]


def test_whoever_looked_earlier_than_another_announces_nothing(client):
    awake, frozen = store_of(client), store_of(client)
    awake.observe([PAUSED], 1_000)
    awake.observe([PAUSED], 7_000)
    awake.observe([], 8_000)
    awake.observe([], 8_000 + CALM)

    assert frozen.observe([PAUSED], 7_500) == -1
    assert announced(awake) == [("begins", "destination_paused"), ("over", "destination_paused")]


def test_a_clock_that_was_set_back_silences_nobody(client, book):
    seconds, _ = client.time()
    ahead = (seconds + 3_600) * 1_000
    book.observe([PAUSED], ahead)
    book.observe([PAUSED], (seconds - 10) * 1_000)

    assert book.observe([PAUSED], (seconds - 1) * 1_000) == 1


def test_a_message_is_in_one_process_hands_at_a_time(client):
    first, second = store_of(client), store_of(client)
    first.observe([PAUSED], 1_000)
    second.observe([PAUSED], 7_000)

    taken = first.take()

    assert taken is not None
    assert second.take() is None
    first.conclude(taken, SENT)
    assert second.take() is None


def test_a_process_that_stood_still_sends_nothing_when_another_may_have_it(client):
    first, second = store_of(client), store_of(client)
    first.observe([PAUSED], 1_000)
    first.observe([PAUSED], 7_000)
    taken = first.take()
    assert taken is not None
    assert taken.may_be_sent()

    woken_late = replace(taken, fresh_until=0.0)
    assert not woken_late.may_be_sent()
    assert stores.FRESH_SECONDS < stores.CLAIM_SECONDS
    # What was concluded by somebody else meanwhile is left alone.
    other = replace(taken, epoch=taken.epoch - 1)
    second.conclude(other, SENT)
    assert client.hlen(keys.ALERTS_OUTBOX) == 1


def test_a_message_that_is_not_taken_is_tried_again_and_given_up_at_last(client, book):
    book.observe([PAUSED], 1_000)
    book.observe([PAUSED], 7_000)

    tries = []
    for _ in range(MOST_TRIES + 1):
        taken = book.take()
        if taken is None:
            break
        tries.append(taken.tries)
        book.conclude(taken, NOT_SENT)
        make_due(client)

    assert tries == [*range(1, MOST_TRIES + 1)]
    assert client.hlen(keys.ALERTS_OUTBOX) == 0


def test_a_message_whose_senders_are_killed_is_sent_twice_at_most(client):
    stores_of_all = [store_of(client) for _ in range(5)]
    stores_of_all[0].observe([PAUSED], 1_000)
    stores_of_all[0].observe([PAUSED], 7_000)

    sent = 0
    for one in stores_of_all:
        sent += one.take() is not None  # posted, and killed before it says so
        assert one.take() is None
        make_due(client)

    assert sent == 2
    assert client.hlen(keys.ALERTS_OUTBOX) == 0


def test_a_message_without_an_answer_is_sent_once_more_and_the_next_one_follows(client, book):
    book.observe([PAUSED], 1_000)
    book.observe([PAUSED], 7_000)
    for now in range(8_000, 30_000, 1_000):
        book.observe([], now)

    said = []
    while (taken := book.take()) is not None:
        said.append("over" if taken.alert.is_over else "begins")
        book.conclude(taken, IN_DOUBT)
        make_due(client)

    assert said == ["begins", "begins", "over", "over"]


def make_due(client):
    """Let the lock of whoever took a message lapse, and the wait of each message be over."""
    client.hset(keys.ALERTS, "until", 0)
    for number, text in client.hgetall(keys.ALERTS_OUTBOX).items():
        head, _, rest = text.partition(b'"due":')
        client.hset(
            keys.ALERTS_OUTBOX,
            number,
            head + b'"due":0' + rest[len(rest.split(b",")[0].split(b"}")[0]) :],
        )


def test_what_is_worth_a_look_is_announced_only_where_it_is_asked_for(client):
    quiet = store_of(client)
    quiet.observe([SLOW], 1_000)
    quiet.observe([SLOW], 7_000)
    assert announced(quiet) == []

    loud = store_of(client, severity="attention")
    loud.observe([SLOW], 8_000)
    loud.observe([SLOW], 14_000)
    assert announced(loud) == [("begins", "destination_slowed")]


def test_a_full_redis_still_announces(client, book):
    client.config_set("maxmemory", 1)
    try:
        book.observe([PAUSED], 1_000)
        book.observe([PAUSED], 7_000)
        assert announced(book) == [("begins", "destination_paused")]
    finally:
        client.config_set("maxmemory", 0)


def test_the_outbox_is_bounded(client, book):
    for number in range(300):
        one = HealthProblem("job_failed", ILL, f"job-{number}", "?", "?")
        book.observe([one], 1_000 + number * 20_000)
        book.observe([one], 7_000 + number * 20_000)

    assert client.hlen(keys.ALERTS_OUTBOX) <= stores.MOST_MESSAGES
