"""How processes agree on who sends messages, and what each machine does while Redis is away."""

import threading
from contextlib import closing
from itertools import pairwise

import orjson
import pytest
from structlog.testing import capture_logs

from segrelay.ops.status.alerts import (
    OPEN,
    AlertTable,
    Announcer,
    OpenProblem,
    start_announcer,
)
from segrelay.ops.status.problems import ILL, HealthProblem
from segrelay.ops.status.standing import WatchedFile, read_failure
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import WORKER, Process, tell_seen
from segrelay.worker.contract.redis.connection import connect, now_us
from segrelay.worker.contract.settings.sections import NotifySettings
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.contract.triggers import Pause, field_of, set_pause
from tests.configuration import endpoint, settings_in, table, trigger
from tests.full import full
from tests.journeys.endpoint import Endpoint
from tests.waiting import allowed, until

TABLES = endpoint("one"), trigger("vip", destination="one")


def test_a_process_that_lacks_the_address_announces_nothing_and_says_so(settings, tmp_path):
    with capture_logs() as said:
        assert start_announcer(settings) is None
        without = settings_in(tmp_path, *TABLES, table("operate.notify", url="env:CHAT_URL"))
        assert start_announcer(without) is None

    (line,) = said
    assert (line["event"], line["log_level"]) == ("alerts.off", "warning")
    assert "env:CHAT_URL" in line["message"]


@pytest.fixture
def client(redis_url):
    """A Redis with an ill problem: a trigger that a person has paused."""
    with closing(connect(redis_url)) as found:
        tell_seen(found, WORKER)
        set_pause(found, field_of("trigger", "vip"), Pause("too many", "ops"))
        yield found


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, *TABLES)


@pytest.fixture
def chat():
    """An address that takes each message."""
    with Endpoint(lambda _: (200, {})) as taking:
        yield taking


def announcer_of(client, settings, address):
    notify = NotifySettings(url=Secret("env:CHAT_URL", address), after_seconds=0.0)
    operate = settings.operate.model_copy(update={"notify": notify})
    file = WatchedFile(settings.model_copy(update={"operate": operate}), may_change=False)
    return Announcer(client, file, notify, AlertTable(notify, least_ms=60_000))


def look_again(client):
    """Let it be a process' turn to look."""
    client.delete(keys.ALERTS_LOCK)


def test_many_processes_tell_a_problem_once(client, settings, chat):
    processes = [announcer_of(client, settings, chat.url) for _ in range(3)]
    for one in processes * 2:
        look_again(client)
        one.round()

    assert [came.body["problem"]["name"] for came, _ in chat.came] == ["trigger_paused"]


def test_nobody_sends_while_another_process_does_which_finishes_its_message_at_its_end(
    client, settings
):
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(_):
        is_asked.set()
        may_answer.wait(allowed(20))
        return 200, {}

    with Endpoint(answer) as chat:
        first, second = (announcer_of(client, settings, chat.url) for _ in range(2))
        threading.Thread(target=first.run, daemon=True).start()
        assert is_asked.wait(allowed(20))

        look_again(client)
        second.round()
        threading.Timer(0.3, may_answer.set).start()
        first.end()

        assert len(chat.came) == 1
    known = orjson.loads(client.hget(keys.ALERTS, OPEN))
    assert known["trigger_paused|vip"]["told_ms"] > 0
    assert not client.hexists(keys.ALERTS, "lock")


def test_why_messages_are_not_taken_is_known_until_one_is(client, settings):
    status = [404]
    with Endpoint(lambda _: (status[0], {})) as chat:
        announcer = announcer_of(client, settings, chat.url)
        announcer.round()
        assert read_failure(client).reason == "it answered 404"
        status[0] = 200

        def is_taken():
            look_again(client)
            announcer.round()
            return read_failure(client) is None

        until(is_taken, 20)


def test_a_full_redis_still_announces(client, settings, chat):
    with full(client):
        announcer_of(client, settings, chat.url).round()

    assert "redis_full" in {came.body["problem"]["name"] for came, _ in chat.came}


def test_an_entry_that_cannot_be_read_is_left_out(client, settings, chat):
    problem = HealthProblem("job_failed", ILL, "nightly", "it broke off", "segrelay status")
    known = orjson.loads(orjson.dumps(OpenProblem(problem, 1_000, 1_000, told_ms=1_000)))
    entries = {"job_failed|nightly": known | {"newer": 1}, "cut|": "?"}
    client.hset(keys.ALERTS, OPEN, orjson.dumps(entries))
    announcer_of(client, settings, chat.url).round()

    told = {(came.body["event"], came.body["problem"]["name"]) for came, _ in chat.came}
    assert told == {("problem_over", "job_failed"), ("problem", "trigger_paused")}


def test_a_process_with_an_older_configuration_leaves_it_to_the_others_to_judge(
    client, settings, chat
):
    newer = settings.model_copy(update={"fingerprint": "newer"})
    worker = Process("elsewhere", 7, WORKER, "newer", begun_ms=1)
    client.zadd(keys.PROCESSES, {worker.dumps(): now_us(client)})
    announcer_of(client, settings, chat.url).round()
    assert not client.hexists(keys.ALERTS, OPEN)

    look_again(client)
    announcer_of(client, newer, chat.url).round()
    assert client.hexists(keys.ALERTS, OPEN)


WHY = "Redis at 127.0.0.1:6379 can't be reached."


def pass_time(seconds, *processes, failure=""):
    """Let the processes of a machine look, as if time had passed since their last look."""
    for one in processes:
        for entry in one.outage.problems.values():
            entry.since_ms -= 1_000 * seconds
            entry.seen_ms -= 1_000 * seconds
        one.look_for_redis(failure)


def test_one_of_the_processes_of_a_machine_tells_of_an_outage_and_its_end(client, settings, chat):
    processes = [announcer_of(client, settings, chat.url) for _ in range(3)]
    pass_time(0, *processes, failure=WHY)
    pass_time(40, *processes, failure=WHY)
    assert chat.came == []
    pass_time(30, *processes, failure=WHY)
    pass_time(30, *processes, failure=WHY)
    pass_time(2, *processes)
    pass_time(12, *processes)

    assert [came.body["event"] for came, _ in chat.came] == ["problem", "problem_over"]


def test_another_process_goes_on_after_the_one_that_told_it_is_gone(client, settings, chat):
    first, second = (announcer_of(client, settings, chat.url) for _ in range(2))
    for _ in range(2):
        pass_time(70, first, second, failure=WHY)
    first._unlock()  # as the end of its process does
    pass_time(70, second, failure=WHY)
    pass_time(2, second)
    pass_time(12, second)

    events = [came.body["event"] for came, _ in chat.came]
    assert events == ["problem", "problem", "problem_over"]


def test_without_a_file_to_lock_it_is_told_all_the_same(client, settings, chat):
    settings.source.unlink()
    one = announcer_of(client, settings, chat.url)
    for before, _ in pairwise(range(3)):
        pass_time(70 * before, one, failure=WHY)

    assert [came.body["problem"]["name"] for came, _ in chat.came] == ["redis_unreachable"]
